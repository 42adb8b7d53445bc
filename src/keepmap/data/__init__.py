"""From files to samples: reading, pairing, judging, splitting, drawing and writing images and masks.

Knows no network and no training; arrays are numpy's.
"""
