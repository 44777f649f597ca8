"""Objectives of trials: first of all quality, then optional further ones.

names in `sweep.objectives` + a trial's attributes -> values, order, Pareto front, when to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import InputError

DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {
    "val_score": "minimize",
    "val_loss": "minimize",
    "val_accuracy": "maximize",
    "val_r2": "maximize",
    "ms_per_image": "minimize",
    "parameters": "minimize",
}
"""Objective -> direction of improvement."""
MEASURED = ("ms_per_image", "parameters")
"""Objectives that depend only on the network, not on training."""
_MIN_TRIALS = 10


def check(names: Sequence[str]) -> None:
    """Stop at invalid objectives.

    Raises:
        InputError: One is unknown or named twice, or the first is not about quality.
    """
    good = [name for name in DIRECTIONS if name not in MEASURED]
    unknown = [name for name in names if name not in DIRECTIONS]
    if unknown or len(set(names)) != len(names) or not names or names[0] not in good:
        raise InputError(
            f"sweep.objectives must begin with one of {', '.join(good)}, and can continue with "
            f"others and {', '.join(MEASURED)}, each once; got {list(names)}"
        )


def insist(names: Sequence[str], quality: str) -> None:
    """Stop at an objective of another task; `quality` is this task's metric besides the loss."""
    for name in names:
        if name not in ("val_score", "val_loss", f"val_{quality}", *MEASURED):
            raise InputError(f"sweep.objectives must not have {name} here: use val_{quality}")


def quality(values: Mapping[str, Any]) -> str:
    """Return the name of the task's metric among a trial's attributes, such as val_accuracy."""
    others = (name for name in values if name.startswith("val_"))
    return next(name for name in others if name not in ("val_score", "val_loss"))


def order(names: Sequence[str], trial: FrozenTrial) -> tuple[float, int]:
    """Return the sort key of complete trials, best first: first objective, then number."""
    value = float(trial.user_attrs[names[0]])
    return (value if DIRECTIONS[names[0]] == "minimize" else -value, trial.number)


def without_progress(study: Study) -> int:
    """Count the trials since the last improvement."""
    trials = study.get_trials(deepcopy=False)
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    complete = any(trial.state == TrialState.COMPLETE for trial in trials)
    good = [trial.number for trial in study.best_trials] if complete else []
    # Of equally good trials, the first is the improvement.
    last = (min(good) if len(study.directions) == 1 else max(good)) if good else -1
    return sum(trial.number > last for trial in ended)


def outlook(study: Study) -> str:
    """Say whether more trials are likely to help."""
    trials = study.get_trials(deepcopy=False)
    ended = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)
    since = without_progress(study)
    if ended < _MIN_TRIALS:
        return f"{ended} trials are too few to judge whether more would help"
    if since >= max(_MIN_TRIALS, ended // 2):
        return f"no improvement in the last {since} of {ended} trials: more are unlikely to help"
    if since < ended // 4:
        return f"last improvement {since} of {ended} trials ago: more are likely to help"
    return f"no improvement in the last {since} of {ended} trials: more may help a little"
