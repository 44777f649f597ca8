"""MLflow: the store, the runs of stages and sweeps, the logged model, and where all came from.

>>> from pipeline.tracking import processes
>>> processes.dead(processes.identity())
False
"""
