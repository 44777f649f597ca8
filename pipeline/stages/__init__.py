"""The stages, one module each, in the order of the DAG.

A stage module has a `Config` (its section of params.yaml), `READS` (the other
sections it is given) and `run(config, ..., out) -> metrics`, which a notebook
can call as well as the runner.
"""

STAGES = ("prepare", "extract_features", "train_head", "finetune", "evaluate")
