"""Trained networks as single files for other runtimes, and the proof that they compute the same.

Trains nothing; what computes an exported file is in `runtime`.
"""
