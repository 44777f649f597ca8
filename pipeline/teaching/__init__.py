"""Teach a classifier while you watch: label images, suggest the next ones, add to a trained model.

    >>> import numpy as np
    >>> from pipeline.teaching import order
    >>> places = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> order.suggest(places, np.ones((4, 1)), [0], 1).tolist()
    [2]

Features are stored by image (`features.by_image`), so that only new images are computed.
"""
