"""MLflow: the store, the runs of stages and sweeps, the logged model, and where all came from.

with runs.stage_run("finetune", config) as run: ...
"""
