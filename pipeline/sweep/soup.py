"""Average a sweep's best trials at its end (model soup).

study -> trials that share cut and head with the best one -> a fine-tuning of their soup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.sweep import objectives
from pipeline.sweep.space import NONE

ATTRIBUTE = "soup"
"""Attribute of the study with the result."""
MAX_TRIALS = 5
"""Maximum number of trials in a soup: each is trained again."""

_CUT = "finetune.cut"
_PREFIX = "finetune."


def candidates(study: Study, names: Sequence[str]) -> list[FrozenTrial]:
    """List the best trial and those that can be averaged with it, best first.

    Fewer than two trials if there is nothing to average.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(done, key=lambda trial: objectives.order(names, trial))
    if not ranked or ranked[0].user_attrs["settings"][_CUT] == NONE:
        return []
    same = _shared(ranked[0])
    return [trial for trial in ranked if _shared(trial) == same][:MAX_TRIALS]


def recipe(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """Return the `finetune.soup` that adds all other trials to the first one."""
    return [
        {
            key.removeprefix(_PREFIX): value
            for key, value in trial.user_attrs["settings"].items()
            if key.startswith(_PREFIX) and key != _CUT
        }
        for trial in trials[1:]
    ]


def result(study: Study, names: Sequence[str]) -> Mapping[str, Any]:
    """Return the soup's result if it used the study's present trials: trials, val_score, ..."""
    outcome: Mapping[str, Any] = study.user_attrs.get(ATTRIBUTE, {})
    present = [trial.number for trial in candidates(study, names)]
    return outcome if outcome.get("tried") == present else {}


def _shared(trial: FrozenTrial) -> dict[str, Any]:
    """Return cut and head, which weights must have in common to be averaged."""
    settings = trial.user_attrs["settings"].items()
    return {key: value for key, value in settings if key == _CUT or not key.startswith(_PREFIX)}
