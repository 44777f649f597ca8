"""How good a classifier is, and how sure that is: metrics, intervals, plots, Grad-CAM.

>>> import numpy as np
>>> from pipeline.evaluation import facts, metrics
>>> said = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
>>> round(metrics.of(facts.gather(np.array([0, 1, 1]), said))["accuracy"], 3)
0.667
"""
