"""The average of a sweep's best trials, tried at its end.

study -> which trials share a cut and a head with the best one -> a fine-tuning of their soup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.sweep import objectives
from pipeline.sweep.space import NONE

ATTRIBUTE = "soup"
"""Of the study: what came of it."""
MOST = 5
"""Trials in a soup: each is trained once more."""

_CUT = "finetune.cut"
_PREFIX = "finetune."


def candidates(study: Study, names: Sequence[str]) -> list[FrozenTrial]:
    """The best trial and those that may be averaged with it, best first; fewer than 2 if none.

    Args:
        study: All of whose trials have ended.
        names: Of its objectives.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(done, key=lambda trial: objectives.order(names, trial))
    if not ranked or _settings(ranked[0])[_CUT] == NONE:
        return []
    alike = _shared(ranked[0])
    return [trial for trial in ranked if _shared(trial) == alike][:MOST]


def recipe(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """`finetune.soup` that adds all trials but the first to the first.

    Args:
        trials: As `candidates` gives them.
    """
    return [
        {
            key.removeprefix(_PREFIX): value
            for key, value in _settings(trial).items()
            if key.startswith(_PREFIX) and key != _CUT
        }
        for trial in trials[1:]
    ]


def tried(study: Study, names: Sequence[str]) -> Mapping[str, Any]:
    """What came of the soup, if the study's present trials were tried: trials, val_score, ...

    Args:
        study: All of whose trials have ended.
        names: Of its objectives.
    """
    outcome: Mapping[str, Any] = study.user_attrs.get(ATTRIBUTE, {})
    present = [trial.number for trial in candidates(study, names)]
    return outcome if outcome.get("tried") == present else {}


def _settings(trial: FrozenTrial) -> dict[str, Any]:
    settings: dict[str, Any] = trial.user_attrs["settings"]
    return settings


def _shared(trial: FrozenTrial) -> dict[str, Any]:
    """Cut and head: weights of others have nothing in common that could be averaged."""
    settings = _settings(trial).items()
    return {key: value for key, value in settings if key == _CUT or not key.startswith(_PREFIX)}
