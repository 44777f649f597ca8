"""params.yaml and conf/ and the command line -> one checked config. The only file that knows Hydra.

Layers, later ones win: the schema's defaults, the file that each section's `use` picks in
conf/, params.yaml, the command line. `dvc repro`, `dvc exp run -S` and
`python -m pipeline STAGE section.key=value` therefore mean the same.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from pipeline import dialect, sections, settings
from pipeline.cluster import connection
from pipeline.cluster.connection import Config as Cluster
from pipeline.errors import InputError
from pipeline.features import store
from pipeline.features.augmentation import Config as Augment
from pipeline.features.source import FrozenPart
from pipeline.features.store import Config as Activations
from pipeline.finetuning.settings import Config as Finetune
from pipeline.intake import sources
from pipeline.intake.sources import SourceConfig
from pipeline.networks import backbones
from pipeline.networks.backbones import BackboneConfig
from pipeline.networks.engines import Config as Forward
from pipeline.networks.heads import Config as Head
from pipeline.sections import Promote, Serve, Sweep, Tracking
from pipeline.settings import setting
from pipeline.stages.evaluate import Config as Evaluate
from pipeline.stages.extract_features import Config as ExtractFeatures
from pipeline.stages.prepare import Config as Prepare
from pipeline.stages.train_head import Config as TrainHead
from pipeline.storage.outputs import PARAMS

_BESIDE = Path(__file__).parents[1] / "conf"
# An installed package has none: the project in the current folder does.
CONF = _BESIDE if _BESIDE.is_dir() else Path.cwd() / "conf"
_KINDS = {"data": sources, "backbone": backbones}
_UNRELATED = (sections, connection, store)
"""Modules with sections that no result depends on."""
_READ_OF_SERVE = ("unknown", "coverage")
"""Settings of section `serve` that evaluate reads, too."""
_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.@/]*(=.*)?", re.DOTALL)
_ABSENT = re.compile(r"Environment variable '(?P<name>[^']*)' not found")
_CHOICE = re.compile(r"Invalid value (?P<value>.*), expected one of \[(?P<choices>.*)\]")


@dataclass
class Config:
    """The whole config: sections for data and model, one for each stage, and shared settings."""

    seed: int = setting(
        0, "Random seed for splits, initial weights, shuffling, dropout and augmentation.", least=0
    )
    threads: int = setting(
        2, "Threads for TensorFlow and OpenVINO. The last bits of results depend on it.", least=1
    )
    data: SourceConfig = field(default_factory=SourceConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    head: Head = field(default_factory=Head)
    augment: Augment = field(default_factory=Augment)
    forward: Forward = field(default_factory=Forward)
    prepare: Prepare = field(default_factory=Prepare)
    extract_features: ExtractFeatures = field(default_factory=ExtractFeatures)
    train_head: TrainHead = field(default_factory=TrainHead)
    finetune: Finetune = field(default_factory=Finetune)
    evaluate: Evaluate = field(default_factory=Evaluate)
    cluster: Cluster = field(default_factory=Cluster)
    activations: Activations = field(default_factory=Activations)
    tracking: Tracking = field(default_factory=Tracking)
    sweep: Sweep = field(default_factory=Sweep)
    promote: Promote = field(default_factory=Promote)
    serve: Serve = field(default_factory=Serve)

    @property
    def frozen(self) -> FrozenPart:
        """The settings that the forward pass of the frozen part depends on."""
        return FrozenPart(
            self.backbone,
            self.augment,
            self.forward,
            self.extract_features.batch_size,
            self.seed,
            self.threads,
            self.cluster,
        )

    def essentials(self) -> dict[str, Any]:
        """Return the part that results depend on, as nested plain values."""
        unrelated = {module.__name__ for module in _UNRELATED}
        plain = {
            name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for name, value in vars(self).items()
            if type(value).__module__ not in unrelated
        }
        return plain | {"serve": {name: getattr(self.serve, name) for name in _READ_OF_SERVE}}

    def flat(self) -> dict[str, Any]:
        """Map the full name of every setting that results depend on to its value."""
        return dict(_flat(self.essentials(), ""))


def compose(overrides: Sequence[str] = (), params: Path = PARAMS) -> Config:
    """Compose and check the config from params.yaml and the command line.

    Raises:
        InputError: An unknown setting, or a value that its setting does not take.
    """
    try:
        composed: Any = OmegaConf.to_object(_composed(overrides, params))
    except MissingMandatoryValue as error:
        raise _without_value(str(error.full_key)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_one_line(error)) from error
    assert isinstance(composed, Config)
    settings.check(composed, "")
    for place, changes in enumerate(composed.finetune.soup):
        _check_changes(composed.finetune, changes, f"finetune.soup[{place}]")
    return composed


def _check_changes(finetune: Finetune, changes: Any, name: str) -> None:
    """Check settings inside a list as if they were in their section.

    Raises:
        InputError: There is no such setting, or its value is not allowed.
    """
    if not isinstance(changes, dict) or not changes:
        raise InputError(f"{name} must be settings such as {{learning_rate: 1e-3}}, got {changes}")
    if unknown := sorted(set(changes) - set(finetune.varied())):
        raise InputError(f"{name} may hold {', '.join(finetune.varied())}, got {unknown[0]}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(replace(finetune, soup=[])), changes)
        settings.check(OmegaConf.to_object(merged), name)
    except OmegaConfBaseException as error:
        raise InputError(f"{name}.{_one_line(error)}") from error


def as_yaml(overrides: Sequence[str] = ()) -> str:
    """Return the composed config as YAML; references such as ${oc.env:NAME} stay unresolved."""
    try:
        return OmegaConf.to_yaml(_composed(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_one_line(error)) from error


def setting_of(word: str) -> tuple[str, Any]:
    """Return the name and value of a setting on the command line."""
    _check_form(word)
    return dialect.value_of(word, dialect.hints(Config, tuple(_KINDS.items())))


def is_override(word: str) -> bool:
    """Check for a word that changes a setting: `section.key=value` or `~section.key`."""
    key = word.lstrip("+~").partition("=")[0].partition(".")[0]
    return bool(_OVERRIDE.fullmatch(word)) and ("=" in word or word[0] == "~") and key in SECTIONS


def described(section: str, config: Config | None = None) -> list[settings.Described]:
    """Describe the settings of a section.

    Args:
        section: Name of the section, or full name of a setting.
        config: Selects the kind of `data` and `backbone`; without it, only the settings that all
            kinds share are described.
    """
    section, _, name = section.partition(".")
    values = getattr(Config(), section)
    if section in _KINDS and config is not None:
        values = type(getattr(config, section))()
    if not is_dataclass(values):
        return [item for item in settings.described(Config(), "") if item.name == section]
    items = settings.described(values, section)
    return [item for item in items if name in ("", item.name.partition(".")[2])]


def choices(group: str) -> list[str]:
    """List the choices for a section's `use`: the files of its folder in conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def _groups() -> dict[str, str]:
    """Map each section with a folder in conf/ to its default choice."""
    return {name: value.use for name, value in vars(Config()).items() if hasattr(value, "use")}


def _composed(overrides: Sequence[str], path: Path = PARAMS) -> DictConfig:
    for word in overrides:
        _check_form(word)
    expected = dialect.hints(Config, tuple(_KINDS.items()))
    overrides = [dialect.as_text(word, expected) for word in overrides]
    params = read(path)
    store = ConfigStore.instance()
    store.store("schema", Config)
    for group, package in _KINDS.items():
        for module in pkgutil.iter_modules(package.__path__):
            kind = importlib.import_module(f"{package.__name__}.{module.name}")
            store.store(module.name, kind.Config, group=f"kind/{group}")
    store.store("params", params)
    picked = [f"{group}={choice}" for group, choice in _chosen(params, overrides)]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        plain = [word for word in overrides if "={" not in word]
        if len(plain) < len(overrides):
            composed = hydra.compose("config", [*picked, *plain])
            overrides = [_may_add(word, composed) for word in overrides]
        return hydra.compose("config", [*picked, *overrides])


def _may_add(word: str, composed: DictConfig) -> str:
    """Let a word that sets a mapping, such as `data.labels={Cat: cat}`, add keys to it."""
    key, _, value = word.partition("=")
    if value.startswith("{") and key[0] not in "+~":
        node = OmegaConf.select(composed, key)
        if isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict:
            return f"++{word}"
    return word


def read(path: Path) -> DictConfig:
    """Read the sections of a params.yaml."""
    if not path.exists():
        raise InputError(f"no {path} in {Path.cwd()}: change to the project's folder")
    values = dialect.load(path)
    if not isinstance(values, dict):
        raise InputError(
            f"{path} must hold sections such as data and prepare, got "
            f"{'nothing' if values is None else type(values).__name__}"
        )
    dialect.check(values, dialect.hints(Config, tuple(_KINDS.items())))
    try:
        params: DictConfig = OmegaConf.create(values)
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error
    for key in sorted(OmegaConf.missing_keys(params)):
        raise _without_value(key)
    return params


def _check_form(word: str) -> None:
    key = word.lstrip("+~").partition("=")[0]
    if not _OVERRIDE.fullmatch(word) or not ("=" in word or word[0] == "~"):
        raise InputError(
            f"settings have the form section.key=value, got {word!r}: add --help for a list"
        )
    if key in _groups():
        raise InputError(f"{key} is a section with its own settings, got {word}: set {key}.use")


def _chosen(params: DictConfig, overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Map each section to its file in conf/: default, params.yaml, or command line."""
    for group, default in _groups().items():
        section = params.get(group)
        choice = section.get("use", default) if isinstance(section, DictConfig) else default
        for word in overrides:
            key, _, value = word.lstrip("+").partition("=")
            if key == f"{group}.use":
                choice = value.strip("'\"")
        if choice == settings.REQUIRED:
            raise _without_value(f"{group}.use")
        options = choices(group)
        if choice not in options:
            near = get_close_matches(str(choice), options, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"or add conf/{group}/{choice}.yaml"
            raise InputError(
                f"{group}.use must be one of {', '.join(options)}, got {choice!r}: {remedy}"
            )
        yield group, str(choice)


def _without_value(key: str) -> InputError:
    return InputError(
        f"{key} has no value ('???'): set it in params.yaml or on the command line: {key}=..."
    )


def _one_line(error: BaseException) -> str:
    """Say what is wrong, with the full key: Hydra wraps OmegaConf's errors, which have it."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    cause_with_key = next((c for c in causes if getattr(c, "full_key", None)), error)
    key = str(getattr(cause_with_key, "full_key", None) or "")
    text = str(getattr(cause_with_key, "msg", None) or cause_with_key).splitlines()[0]
    if key and isinstance(cause_with_key, (ConfigAttributeError, ConfigKeyError)):
        return _unknown(key)
    if key and "is not a subclass of" in text:
        return f"{key} is a section with its own settings, got {text.rpartition(': ')[2]}"
    if absent := _ABSENT.search(text):
        name = absent["name"]
        return f"{key} needs the environment variable {name}: export {name}=..."
    if choice := _CHOICE.match(text):
        return f"{key} must be one of {choice['choices']}, got {choice['value']}"
    return f"{key}: {text}" if key and key not in text else text


def _unknown(key: str) -> str:
    """Explain that there is no such setting."""
    section, _, name = key.rpartition(".")
    full = dialect.hints(Config, tuple(_KINDS.items()))
    if key in full:
        return f"{key} is not a setting of the {section} that {section}.use selects"
    names = [other.rpartition(".")[2] for other in full if other.rpartition(".")[0] == section]
    names = names if section else [*SECTIONS]
    if near := get_close_matches(name, names, n=1):
        return f"unknown setting {key}: did you mean {section}.{near[0]}?".replace(" .", " ")
    return f"unknown setting {key}: {section or 'params.yaml'} takes {', '.join(sorted(names))}"


def _flat(value: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


SECTIONS = tuple(vars(Config()))
"""Names of all sections, and of the settings outside any section."""
