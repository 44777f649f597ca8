"""The search space of a sweep: the cut, and settings of the head and both trainings.

settings + backbone -> parameters of a trial -> overrides of the config.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.config import Config, described
from pipeline.errors import InputError
from pipeline.settings import AUTO
from pipeline.storage import tables
from pipeline.sweep import networks

if TYPE_CHECKING:
    import keras
    from optuna import Trial


_SECTIONS = ("finetune", "head", "train_head")
_REFUSED = {
    "finetune.cut": "it is always varied: limit it with sweep.cuts",
    "finetune.monitor": "trials are compared by it",
    "train_head.monitor": "trials are compared by it",
    "finetune.cache": "it does not affect results",
    "finetune.soup": "the best trials are averaged at the end",
    "finetune.replicas": "it is fixed when a worker starts",
}
_DEFAULT = {"finetune": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}}
NONE = "none"


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        cuts: Names of first trainable layers, shallow to deep, then `none` for head only: a
            trial's parameter `cut` is an index of this.
        knobs: Full name of each further setting, and its distribution.
        others: Name of each further backbone with one of its cuts, with the following indices.
    """

    cuts: tuple[str, ...]
    knobs: dict[str, BaseDistribution]
    others: tuple[tuple[str, str], ...] = ()

    @property
    def head_only(self) -> int:
        """Index of `none`."""
        return len(self.cuts) - 1

    @property
    def labels(self) -> list[str]:
        """Description of each index of a cut."""
        more = [f"{name} {'head only' if cut == NONE else cut}" for name, cut in self.others]
        return ["head only" if cut == NONE else cut for cut in self.cuts] + more

    @property
    def combinations(self) -> int | None:
        """Number of different trials, counting head only once; None if infinite."""
        total = self.head_only + len(self.others)
        for knob in self.knobs.values():
            if isinstance(knob, CategoricalDistribution):
                total *= len(knob.choices)
            elif isinstance(knob, (IntDistribution, FloatDistribution)) and knob.step:
                total *= 1 + round((knob.high - knob.low) / knob.step)
            else:
                return None
        return total + 1

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draw a trial's settings: full name -> value."""
        index = trial.suggest_int("cut", 0, self.head_only + len(self.others))
        drawn = {key: _draw(trial, key, knob) for key, knob in self.knobs.items()}
        settings = {key: _decoded(value) for key, value in drawn.items()}
        if index <= self.head_only:
            return {"finetune.cut": self.cuts[index], **settings}
        name, cut = self.others[index - len(self.cuts)]
        return {"finetune.cut": cut, **networks.settings(name), **settings}

    def params(self, config: Config, cut: str) -> dict[str, Any]:
        """Return the parameters of a trial with a config's settings, at a cut."""
        current = {key: _encoded(setting(config, key)) for key in self.knobs}
        return {"cut": self.cuts.index(cut), **current}

    def current(self, config: Config, model: keras.Model) -> str:
        """Return the name in `cuts` of the config's cut."""
        from pipeline.features import cuts

        if config.finetune.head_only:
            return NONE
        batch_norm = config.finetune.batch_norm == "train"
        resolved = cuts.resolve(model, config.finetune.cut, batch_norm)
        wanted = cuts.learning(model, batch_norm, resolved)
        for name in self.cuts[:-1]:
            if cuts.learning(model, batch_norm, cuts.resolve(model, name, batch_norm)) == wanted:
                return name
        raise AssertionError("the current cut is always among them")


def overrides(settings: dict[str, Any]) -> list[str]:
    """Convert settings to words of the command line."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    ]


def named(settings: dict[str, Any]) -> str:
    """Describe a trial's settings: `block_13_expand, 3.1e-04`."""
    varied = {key: value for key, value in settings.items() if key != "backbone.path"}
    parts = [f"{v:.2g}" if isinstance(v, float) else str(v) for v in varied.values()]
    if parts[:1] == [NONE]:
        other = settings.get("backbone.use")
        return f"head only, {other}" if other else "head only"
    return ", ".join(parts)


def setting(config: Config, key: str) -> Any:
    """Look up a setting by its full name."""
    return reduce(getattr, key.split("."), config)


def knobs(config: Config) -> dict[str, BaseDistribution]:
    """Read `sweep.space`; it always includes the current value of each setting.

    Raises:
        InputError: A setting that cannot be varied, or an invalid range.
    """
    distributions = {}
    for key, drawn_from in _leaves(config.sweep.space) or _leaves(_DEFAULT):
        section = key.partition(".")[0]
        if key in _REFUSED:
            raise InputError(f"sweep.space cannot contain {key}: {_REFUSED[key]}")
        if section not in _SECTIONS and key != networks.SIZE:
            raise InputError(
                f"sweep.space can contain backbone, {networks.SIZE} and settings of "
                f"{', '.join(_SECTIONS)}, got {key}: to vary others, edit params.yaml and sweep "
                "again"
            )
        if key == networks.SIZE and not isinstance(drawn_from, list):
            raise InputError(
                f"sweep.space of {key} must be a list of sizes in px, got {drawn_from}: each size "
                "needs its own prepared images"
            )
        try:
            current = setting(config, key)
        except AttributeError as error:
            raise InputError(f"unknown setting {key} in sweep.space") from error
        _check_values(key, drawn_from)
        distributions[key] = _distribution(key, drawn_from, current)
    return distributions


def _check_values(key: str, drawn_from: Any) -> None:
    """Stop at a value that its setting does not allow, before any work.

    Raises:
        InputError: Out of range, or not one of its choices.
    """
    (about,) = described(key) or (None,)
    ends = drawn_from if isinstance(drawn_from, dict) else {}
    for value in drawn_from if isinstance(drawn_from, list) else ends.values():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if about and number and value not in about.about.range:
            raise InputError(f"sweep.space of {key} must be {about.about.range}, got {value}")
        named = isinstance(value, str) and value != AUTO
        if about and about.choices and named and value not in about.choices:
            choices = ", ".join(about.choices)
            raise InputError(f"sweep.space of {key} must be of {choices}, got {value!r}")


def study_name(config: Config, varied: list[str], prepared: Path, features: Path) -> str:
    """Name a study: another search space, other fixed settings or data give another name."""
    # For data and weights the content counts, not the path.
    varied = ["finetune.cut", *varied, "data"]
    varied += ["backbone.use", "backbone.path", "backbone.weights"]
    fixed = {
        name: value
        for name, value in config.flat().items()
        if not any(f"{name}.".startswith(f"{key}.") for key in varied)
    }
    data = tables.read_json(prepared / "summary.json")
    backbone = tables.read_json(features / "backbone.json")
    key = {
        "fixed": fixed,
        "cuts": config.sweep.cuts,
        "space": config.sweep.space,
        "images": data["images_sha256"],
        "manifest": hashlib.sha256((prepared / "manifest.csv").read_bytes()).hexdigest(),
        "backbone": backbone["weights_sha256"],
        "model": backbone["config"].get("model_sha256"),
        "others": networks.digests(config),
    }
    judged = {"objectives": config.sweep.objectives, "folds": config.sweep.folds}
    if judged != {"objectives": ["val_score"], "folds": 1}:
        key["judged"] = judged
    text = json.dumps(key, sort_keys=True, default=str)
    first = config.sweep.study or f"{config.data.use}-{config.backbone.use}"
    return f"{first}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def cut_choices(model: keras.Model, config: Config) -> tuple[str, ...]:
    """List the cuts that `sweep.cuts` allows and the current one, shallow to deep, then `none`.

    Cuts that train the same layers are merged.

    Raises:
        InputError: No such cut.
    """
    from pipeline.features import cuts

    batch_norm = config.finetune.batch_norm == "train"
    selection = config.sweep.cuts
    if selection == "blocks":
        blocks = len(cuts.block_starts(model, batch_norm))
        wanted: list[Any] = [{"blocks": n + 1} for n in range(blocks)]
    elif selection == "all":
        wanted = cuts.trainable_points(model, batch_norm)
    elif isinstance(selection, list) and selection:
        wanted = [cut for cut in selection if cut not in (None, NONE)]
    else:
        raise InputError(f"sweep.cuts must be blocks, all, or a list of cuts, got {selection!r}")
    if not config.finetune.head_only:
        wanted = [config.finetune.cut, *wanted]
    by_learning: dict[tuple[str, ...], str] = {}
    for cut in wanted:
        resolved = cuts.resolve(model, cut, batch_norm)
        learning = cuts.learning(model, batch_norm, resolved)
        by_learning[learning] = learning[0]
    ordered = sorted(by_learning.items(), key=lambda item: -len(item[0]))
    return (*(name for _, name in ordered), NONE)


def _leaves(space: dict[str, Any]) -> list[tuple[str, Any]]:
    """List full names and distributions; {low, high} is a leaf."""
    leaves = []
    for section, inner in space.items():
        if section == networks.SETTING:
            continue
        if not isinstance(inner, dict):
            raise InputError(
                "sweep.space is nested like params.yaml, sections with their settings, "
                f"got {section}: {inner}"
            )
        leaves += [(f"{section}.{name}", value) for name, value in inner.items()]
    return leaves


def _distribution(key: str, drawn_from: Any, current: Any) -> BaseDistribution:
    if isinstance(drawn_from, list) and drawn_from:
        choices = [_encoded(choice) for choice in drawn_from]
        kinds = {type(choice) for choice in choices}
        if float in kinds and kinds <= {int, float}:
            choices = [float(choice) for choice in choices]
        own = _encoded(current)
        return CategoricalDistribution([*choices, *([] if own in choices else [own])])
    rule = (
        f"sweep.space of {key} must be a list of choices, or {{low, high}} with `log: true` "
        f"or a `step`, got {drawn_from}"
    )
    if not isinstance(drawn_from, dict) or not {"low", "high"} <= set(drawn_from):
        raise InputError(rule)
    if set(drawn_from) - {"low", "high", "log", "step"} or not isinstance(current, (int, float)):
        raise InputError(rule)
    if drawn_from["low"] > drawn_from["high"]:
        raise InputError(rule)
    low, high = min(drawn_from["low"], current), max(drawn_from["high"], current)
    options = {name: drawn_from[name] for name in ("log", "step") if name in drawn_from}
    try:
        if isinstance(current, int):
            return IntDistribution(low, high, **options)
        return FloatDistribution(float(low), float(high), **options)
    except ValueError as error:
        raise InputError(f"{rule}: {error}") from error


def _draw(trial: Trial, key: str, knob: BaseDistribution) -> Any:
    if isinstance(knob, CategoricalDistribution):
        return trial.suggest_categorical(key, knob.choices)
    if isinstance(knob, IntDistribution):
        return trial.suggest_int(key, knob.low, knob.high, step=knob.step, log=knob.log)
    assert isinstance(knob, FloatDistribution)
    return trial.suggest_float(key, knob.low, knob.high, step=knob.step, log=knob.log)


def _encoded(value: Any) -> Any:
    """Convert lists to text, which Optuna can store."""
    return json.dumps(list(value)) if isinstance(value, (list, tuple)) else value


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value
