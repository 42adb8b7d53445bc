"""Integers and arrays of any spatial rank.

Knows neither torch nor files.
"""
