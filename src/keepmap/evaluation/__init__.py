"""Masks against masks.

Trains nothing.
"""
