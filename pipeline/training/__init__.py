"""Fit a model to examples: settings, loop, steps, curves, the head.

    fitted = fitting.fit(model, train, val, settings, seed=0, work=folder, log=log)

Order, dropout and stopping depend on (seed, epoch) alone.
"""
