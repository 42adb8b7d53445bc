"""Numbers from label maps.

Knows neither torch nor files.
"""
