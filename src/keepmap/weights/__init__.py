"""Weights made elsewhere: what is published, how it is fetched, read and checked, and how networks take it over.

Knows no training; a network knows nothing of where its weights come from.
"""
