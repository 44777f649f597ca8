"""What trials are judged by: first of all how good they are, then what else is asked for.

names of `sweep.objectives` + a trial's attributes -> values, order, front, whether to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import InputError

DIRECTIONS = {
    "val_score": "minimize",
    "val_loss": "minimize",
    "val_accuracy": "maximize",
    "ms_per_image": "minimize",
    "parameters": "minimize",
}
"""Name of each objective -> where good values lie."""
MEASURED = ("ms_per_image", "parameters")
"""Those that a network has however it was trained."""

_FEWEST = 10


def check(names: Sequence[str]) -> None:
    """Stop at objectives that nothing can be judged by.

    Raises:
        InputError: One is unknown or named twice, or the first is not about being right.
    """
    good = [name for name in DIRECTIONS if name not in MEASURED]
    unknown = [name for name in names if name not in DIRECTIONS]
    if unknown or len(set(names)) != len(names) or not names or names[0] not in good:
        raise InputError(
            f"sweep.objectives must begin with one of {', '.join(good)}, and may go on with "
            f"others and {', '.join(MEASURED)}, each once; got {list(names)}"
        )


def directions(names: Sequence[str]) -> list[StudyDirection]:
    """Where good values of each objective lie, as Optuna names it."""
    return [StudyDirection[DIRECTIONS[name].upper()] for name in names]


def values(names: Sequence[str], outcome: Mapping[str, Any]) -> tuple[float, ...]:
    """A trial's values, as Optuna is told them."""
    return tuple(float(outcome[name]) for name in names)


def order(names: Sequence[str], trial: FrozenTrial) -> tuple[float, int]:
    """What complete trials are sorted by, the best first: the first objective, then the number."""
    value = float(trial.user_attrs[names[0]])
    return (value if DIRECTIONS[names[0]] == "minimize" else -value, trial.number)


def front(study: Study) -> list[FrozenTrial]:
    """The trials that no other is better than in all objectives; with one, the best.

    Args:
        study: With as many directions as there are objectives.
    """
    return sorted(study.best_trials, key=lambda trial: trial.number)


def fruitless(study: Study) -> int:
    """How many trials have ended since the last one that brought anything."""
    trials = study.get_trials(deepcopy=False)
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    good = [trial.number for trial in study.best_trials] if _complete(trials) else []
    # Of equally good ones, the first brought it.
    last = (min(good) if len(study.directions) == 1 else max(good)) if good else -1
    return sum(trial.number > last for trial in ended)


def outlook(study: Study) -> str:
    """In words, whether more trials are likely to help, as far as the trials so far tell."""
    trials = study.get_trials(deepcopy=False)
    ended = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)
    since = fruitless(study)
    if ended < _FEWEST:
        return f"{ended} trials are too few to tell whether more would help"
    if since >= max(_FEWEST, ended // 2):
        return f"the last {since} of {ended} trials brought nothing: more are unlikely to help"
    if since < ended // 4:
        return f"something better came {since} trials ago, of {ended}: more are likely to help"
    return f"the last {since} of {ended} trials brought nothing: more may help a little"


def _complete(trials: list[FrozenTrial]) -> bool:
    return any(trial.state == TrialState.COMPLETE for trial in trials)
