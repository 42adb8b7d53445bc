"""Torch modules and nothing else: encoders, the networks over them, and what can be computed about them.

Knows no files, images, losses or loops.
"""
