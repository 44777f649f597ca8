"""How good a classifier is, and how sure that is: metrics, intervals, plots, Grad-CAM, a baseline.

found = resampling.resample(labels, probabilities, draws=1000, seed=0)
"""
