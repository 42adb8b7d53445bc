"""A trained model behind a port: an HTTP API, jobs that outlive the process, and a page to drop an image on.

Knows nothing of training or of networks; what is predicted is what `inference` predicts.
"""
