"""Fit a model to examples: settings, loop, steps, curves, the head.

    >>> import numpy as np
    >>> from pipeline.training import score
    >>> from pipeline.training.settings import Monitor
    >>> probabilities = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    >>> score.judge(np.array([0, 1]), probabilities, Monitor.accuracy)["val_accuracy"]
    1.0

Order, dropout and stopping depend only on (seed, epoch).
"""
