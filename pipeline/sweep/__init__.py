"""Search the cut point and the learning rate. The only package that knows Optuna.

    >>> from pipeline.sweep import space
    >>> space.overrides({"finetune.learning_rate": 0.001})
    ['finetune.learning_rate=0.001']

settings -> space (what is varied) -> study (trials, on disk or in a database) -> worker (runs
trials); supervisor (starts workers, shows progress) -> report.
"""
