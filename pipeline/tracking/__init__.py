"""MLflow: the store, runs of stages and sweeps, the logged model, and provenance.

>>> from pipeline.tracking import processes
>>> processes.dead(processes.identity())
False
"""
