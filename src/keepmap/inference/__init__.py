"""From an image of any size to its labels, in one pass or in exact tiles, in memory or from file to file.

Knows nothing of training or of how a network is built.
"""
