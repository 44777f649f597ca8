"""Fit a model to examples: settings, loop, steps, curves, the head.

    >>> from pipeline.training.settings import Monitor
    >>> Monitor("log_loss").name
    'log_loss'

Order, dropout and stopping depend only on (seed, epoch).
"""
