"""params.yaml and conf/ and the command line -> one checked config. The only file that knows Hydra.

Layers, later ones win: the schema's defaults, the file that `use` picks of each
group in conf/, params.yaml, the command line. `dvc repro`, `dvc exp run -S` and
`python -m pipeline STAGE key=value` therefore mean the same.
"""

import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from pipeline import backbones, sources
from pipeline.activations import Config as Activations
from pipeline.augmentation import Config as Augment
from pipeline.demo import Config as Demo
from pipeline.errors import InputError
from pipeline.gate import Config as Promote
from pipeline.heads import Config as Head
from pipeline.pretrain import Config as Pretrain
from pipeline.server import Config as Serve
from pipeline.stages.evaluate import Config as Evaluate
from pipeline.stages.extract_features import Config as ExtractFeatures
from pipeline.stages.finetune import Config as Finetune
from pipeline.stages.prepare import Config as Prepare
from pipeline.stages.train_head import Config as TrainHead
from pipeline.sweep.settings import Config as Sweep
from pipeline.sweep.settings import Pruner, Sampler
from pipeline.tracking_store import Config as Tracking

CONF = Path(__file__).parents[1] / "conf"
PARAMS = Path("params.yaml")
GROUPS = ("data", "backbone", "head", "augment", "tracking", "sampler", "pruner")


@dataclass
class Use:
    """Section `use`: one file of each group in conf/."""

    data: str = "???"
    backbone: str = "???"
    head: str = "???"
    augment: str = "none"
    tracking: str = "mlflow"
    sampler: str = "tpe"
    pruner: str = "median"


@dataclass
class Inputs:
    """Section `inputs`: what DVC watches outside the code."""

    data: str = "???"
    backbone: str = "???"


@dataclass
class Config:
    """Everything. One section a stage, one for each group, and what they share.

    Attributes:
        seed: Of splits, first weights, order and dropout.
        threads: Of TensorFlow.
    """

    seed: int = 0
    threads: int = 2
    use: Use = field(default_factory=Use)
    inputs: Inputs = field(default_factory=Inputs)
    data: Any = None
    backbone: Any = None
    head: Head = field(default_factory=Head)
    augment: Augment = field(default_factory=Augment)
    tracking: Tracking = field(default_factory=Tracking)
    prepare: Prepare = field(default_factory=Prepare)
    extract_features: ExtractFeatures = field(default_factory=ExtractFeatures)
    train_head: TrainHead = field(default_factory=TrainHead)
    finetune: Finetune = field(default_factory=Finetune)
    evaluate: Evaluate = field(default_factory=Evaluate)
    activations: Activations = field(default_factory=Activations)
    sweep: Sweep = field(default_factory=Sweep)
    sampler: Sampler = field(default_factory=Sampler)
    pruner: Pruner = field(default_factory=Pruner)
    promote: Promote = field(default_factory=Promote)
    serve: Serve = field(default_factory=Serve)
    demo: Demo = field(default_factory=Demo)
    pretrain: Pretrain = field(default_factory=Pretrain)


def application(
    name: str, overrides: Sequence[str], task: Callable[[Config], None], help_text: str
) -> None:
    """Run a task as a Hydra application: `--cfg job`, `--help` and overrides work.

    Args:
        name: Of the task, for the help.
        overrides: The command line after the task's name.
        task: Called with the composed config.
        help_text: First lines of `--help`.

    Raises:
        InputError: A key, type, value or choice that does not exist.
    """
    _register(help_text)
    if any(word in ("-m", "--multirun") for word in overrides):
        raise InputError(
            "one run at a time, got --multirun: queue several with "
            "dvc exp run --queue -S 'finetune.learning_rate=choice(1e-4,1e-3)'"
        )
    options, unknown = get_args_parser().parse_known_args(list(overrides))
    _check_form([*unknown, *options.overrides])
    arguments, _ = _with_groups(list(overrides))
    # Hydra reads the command line itself, and prints errors itself unless told not to.
    sys.argv = [f"python -m pipeline {name}", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"

    composed: list[DictConfig] = []

    def entry(config: DictConfig) -> None:
        composed.append(config)

    with _explained():
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(entry)()
    if composed:  # not with --help or --cfg
        task(_checked(composed[0]))


def compose(overrides: Sequence[str] = ()) -> Config:
    """The config that `application` would give its task.

    Raises:
        InputError: As `application`.
    """
    _register("")
    _check_form(overrides)
    arguments, _ = _with_groups(list(overrides))
    with _explained(), hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return _checked(hydra.compose("config", arguments))


class _explained:
    """Turn Hydra's and OmegaConf's errors into one line."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, (HydraException, OmegaConfBaseException)):
            raise InputError(_one_line(error)) from error


def _register(help_text: str) -> None:
    store = ConfigStore.instance()
    store.store("schema", Config)
    for group, package in (("data", sources), ("backbone", backbones)):
        for module in pkgutil.iter_modules(package.__path__):
            kind = importlib.import_module(f"{package.__name__}.{module.name}")
            store.store(module.name, kind.Config, group=f"kind/{group}")
    store.store("params", _params())
    OmegaConf.register_new_resolver("pipeline_help", lambda: help_text, replace=True)


def _params() -> DictConfig:
    if not PARAMS.exists():
        raise InputError(
            f"{PARAMS} is read from the current folder, and {Path.cwd()} has none: change to "
            "the project's folder"
        )
    try:
        params = OmegaConf.load(PARAMS)
    except (YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{PARAMS} must be YAML: {_one_line(error)}") from error
    if not isinstance(params, DictConfig):
        raise InputError(f"{PARAMS} must hold sections such as use and prepare, got a list")
    for key in sorted(OmegaConf.missing_keys(params)):
        raise _without_value(key)
    return params


def _check_form(words: Sequence[str]) -> None:
    for word in words:
        if word.startswith(("-", "=")) or not (word.startswith("~") or "=" in word):
            raise InputError(
                f"settings have the form section.key=value, got {word!r}: --help lists them"
            )


def _with_groups(overrides: list[str]) -> tuple[list[str], dict[str, str]]:
    """Make `use.data=x` and `data=x` pick a file of conf/data, wherever it is said."""
    use = _params().get("use") or {}
    choices = {group: use.get(group) or getattr(Use, group) for group in GROUPS}
    rest = []
    for word in overrides:
        key, _, value = word.partition("=")
        group = key.removeprefix("use.")
        if group in GROUPS and value:
            choices[group] = value
        else:
            rest.append(word)
    for group, choice in choices.items():
        _check_choice(group, str(choice))
    picked = [f"{group}={choice}" for group, choice in choices.items()]
    return [*picked, *(f"use.{word}" for word in picked), *rest], choices


def _check_choice(group: str, choice: str) -> None:
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if choice in options:
        return
    near = get_close_matches(choice, options, n=1)
    raise InputError(
        f"use.{group} must be one of {', '.join(options)}, got {choice!r}"
        + (
            f": did you mean {near[0]}?"
            if near
            else f": pick one, or add conf/{group}/{choice}.yaml"
        )
    )


def _checked(composed: DictConfig) -> Config:
    try:
        config = OmegaConf.to_object(composed)
    except MissingMandatoryValue as error:
        raise _without_value(str(error.full_key)) from error
    assert isinstance(config, Config)
    return config


def _without_value(key: str) -> InputError:
    return InputError(
        f"{key} has no value ('???'): set it in params.yaml, or on the command line: {key}=..."
    )


def _one_line(error: BaseException) -> str:
    """What is wrong, with the full key: Hydra wraps OmegaConf's errors, which have it."""
    told = [str(error)]
    cause = error.__cause__ or error.__context__
    while cause is not None:
        told.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = next((one for one in reversed(told) if "full_key:" in one), told[0])
    found = re.search(r"full_key: (\S+)", text)
    key = found.group(1) if found else ""
    details = ("full_key:", "object_type=", "reference_type=", "In 'params'", "See https")
    lines = [line.strip() for line in text.splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(details))
    if key and re.search(r"Key '.*' (is )?not in", text):
        section = key.rpartition(".")[0]
        known = _settings(section)
        near = get_close_matches(key, known, n=1)
        return f"{key} is no setting: {section or 'the config'} has {', '.join(known)}" + (
            f"; did you mean {near[0]}?" if near else ""
        )
    if key and "is not a subclass of" in text:
        return f"{key} is a section with settings of its own, got {text.rpartition(': ')[2]}"
    return f"{key}: {text}" if key and key not in text else text


def _settings(section: str) -> list[str]:
    """Full names of the settings of a section, as far as the schema tells."""
    schema = OmegaConf.structured(Config)
    node = OmegaConf.select(schema, section) if section else schema
    if not isinstance(node, DictConfig):
        return [f"those of {section}.kind"]
    return [f"{section}.{name}" if section else f"{name}" for name in map(str, node)]
