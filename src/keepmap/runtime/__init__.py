"""Arrays in, labels out: where a network computes.

Knows nothing of files, label values or how a large image is cut.
"""
