"""Pictures and pages from results.

Computes nothing that a result does not hold.
"""
