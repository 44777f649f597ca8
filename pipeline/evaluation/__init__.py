"""Evaluate a classifier, with uncertainty: metrics, intervals, plots, Grad-CAM.

>>> import numpy as np
>>> from pipeline.data.tasks import named
>>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
>>> facts = named("classification").facts(np.array([0, 1, 1]), probabilities)
>>> round(facts.values()["accuracy"], 3)
0.667
"""
