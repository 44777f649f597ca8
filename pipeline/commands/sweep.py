"""Search where to cut the network and how fast to learn, with Optuna.

Trial 0 is params.yaml as it is, trial 1 the head alone. Trials see the training and the
validation split, never the test split. The same command resumes a sweep that was stopped.

    python -m pipeline sweep sweep.n_trials=20
"""

from collections.abc import Callable, Sequence

from pipeline.config import Config

SECTIONS = ("sweep",)


def run(config: Config, overrides: list[str], compose: Callable[[Sequence[str]], Config]) -> None:
    """Sweep, or be one of the workers of a sweep."""
    from pipeline.sweep import supervisor

    supervisor.run(config, overrides, compose)
