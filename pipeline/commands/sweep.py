"""Search for the best cut, learning rate and other settings with Optuna.

Trial 0 is params.yaml as it is, trial 1 the head only. Trials see the training and validation
splits, never the test split. The same command resumes a sweep that was stopped.

    python -m pipeline sweep sweep.n_trials=20
"""

from collections.abc import Callable, Sequence

from pipeline.config import Config


def run(config: Config, overrides: list[str], compose: Callable[[Sequence[str]], Config]) -> None:
    """Run a sweep, or one of its workers."""
    from pipeline.sweep import supervisor

    supervisor.run(config, overrides, compose)
