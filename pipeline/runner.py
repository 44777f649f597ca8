"""Run a stage or a command: name + command line -> the arguments that its `run` names.

A stage is a module of `pipeline.stages`, a command a module of `pipeline.commands`. Its docstring
is its help; the parameter names of `run` select what it receives.
"""

import argparse
import ast
import importlib
import inspect
import pkgutil
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

from pipeline import commands, config, dialect, settings, stages
from pipeline.config import SECTIONS, Config
from pipeline.errors import InputError
from pipeline.storage import outputs
from pipeline.storage.outputs import ROOT, STAGES

_PROGRAM = "python -m pipeline"
_READ = {
    "frozen": (
        *("backbone", "augment", "forward", "extract_features.batch_size"),
        *("cluster", "seed", "threads"),
    ),
    "unknown": ("serve.unknown",),
    "coverage": ("serve.coverage",),
}
"""Parameter of a stage's `run` -> the settings it is made from."""


def run(name: str, words: Sequence[str]) -> int:
    """Run a stage or a command and return the exit code.

    Raises:
        InputError: There is no such command, or it does not take these words.
    """
    module = _module(name)
    if {"-m", "--multirun"} & set(words):
        raise InputError(
            "--multirun is not supported: queue several runs with "
            "dvc exp run --queue -S 'finetune.learning_rate=choice(1e-4,1e-3)'"
        )
    overrides = [word for word in words if config.is_override(word)]
    parser = _parser(name, module)
    options = parser.parse_args([word for word in words if word not in overrides])
    overrides += getattr(options, "settings", [])  # words that do not look like a setting
    if options.cfg:
        print(config.as_yaml(overrides), end="")
        return 0
    if name in STAGES:
        run_stage(name, config.compose(overrides))
        return 0
    available = {"options": options, "overrides": overrides, "compose": config.compose}
    if set(inspect.signature(module.run).parameters) - set(available):
        composed = config.compose(overrides)
        available |= {**vars(composed), "config": composed}
    return int(_by_signature(module.run, available) or 0)


def run_stage(stage: str, composed: Config) -> None:
    """Run one stage: locked and tracked, with its output put in place at the very end."""
    from pipeline.networks import runtime
    from pipeline.setup import checks
    from pipeline.tracking import runs

    out = ROOT / stage
    with outputs.locked(out), runs.stage_run(stage, composed) as tracked:
        if stage == STAGES[0]:  # which needs no TensorFlow
            checks.insist(composed)
        else:
            replicas = composed.finetune.replicas if stage == "finetune" else 1
            runtime.configure(composed.seed, composed.threads, replicas)
            print(", ".join(f"{name} {value}" for name, value in runtime.versions().items()))
        with outputs.replacing(out) as aside:
            available = {
                **vars(composed),
                "config": getattr(composed, stage),
                "frozen": composed.frozen,
                "unknown": composed.serve.unknown,
                "coverage": composed.serve.coverage,
                "folders": outputs.Folders(aside),
                "log": tracked.log,
            }
            metrics = _by_signature(_module(stage).run, available)
        tracked.finish(metrics, out)


def usage() -> str:
    """List every stage and command with a one-line summary."""
    lines = [f"Usage: {_PROGRAM} COMMAND [section.key=value ...]", ""]
    lines += ["Stages, run in order by `dvc repro`, which then runs report:"]
    lines += [f"  {name:18}{_summary(_module(name))}" for name in STAGES]
    lines += ["", "Commands:"]
    lines += [f"  {name:18}{_summary(_module(name))}" for name in _commands()]
    lines += ["", "COMMAND --help    options and settings of a command"]
    lines += ["COMMAND --cfg job print the resolved config", "--version         print the version"]
    return "\n".join(lines)


def _by_signature(function: Callable[..., Any], available: Mapping[str, Any]) -> Any:
    """Call a function with the values that its parameters name."""
    return function(**{name: available[name] for name in inspect.signature(function).parameters})


def _module(name: str) -> ModuleType:
    full = f"{(stages if name in STAGES else commands).__name__}.{name}"
    module = importlib.import_module(full) if name.isidentifier() and find_spec(full) else None
    if module is None or not hasattr(module, "run"):
        near = get_close_matches(name, (*STAGES, *_commands()), n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"{_PROGRAM} --help lists them"
        raise InputError(f"unknown command {name!r}: {remedy}")
    return module


def _commands() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(commands.__path__)]


class _Parser(argparse.ArgumentParser):
    """Report a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}: see {self.prog} --help")


class _Help(argparse.Action):
    """Print the help, which is only built when it is requested."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        module = _module(parser.prog.rpartition(" ")[2])
        parser.epilog = "\n".join(_settings_help(sections_of(module))) or None
        parser.print_help()
        parser.exit()


def _parser(name: str, module: ModuleType) -> _Parser:
    parser = _Parser(
        prog=f"{_PROGRAM} {name}",
        description=_docstring(module),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    if hasattr(module, "arguments"):
        module.arguments(parser)
    else:
        parser.add_argument("settings", nargs="*", metavar="section.key=value", help="see below")
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help")
    parser.add_argument("--cfg", choices=["job"], help="print the resolved config")
    return parser


def sections_of(module: ModuleType) -> list[str]:
    """List the sections and settings that a command names, or that its `run` receives."""
    listed: tuple[str, ...] | None = getattr(module, "SECTIONS", None)
    if listed is not None:
        return list(listed)
    own = module.__name__.rpartition(".")[2]
    named: dict[str, tuple[str, ...]] = {name: (name,) for name in SECTIONS}
    read = {**named, **_READ, "config": named.get(own, ())}
    parameters = inspect.signature(module.run).parameters
    return list(dict.fromkeys(part for name in parameters for part in read.get(name, ())))


def _settings_help(sections: Sequence[str]) -> Iterator[str]:
    """Describe settings, common ones first: name, default, help, choices."""
    try:
        composed = config.compose()
    except InputError:  # the help also works outside a project
        composed = None
    described = [item for section in sections for item in config.described(section, composed)]
    names = [f"{item.name}={_written(item.default)}" for item in described]
    width = min(max(map(len, names), default=0), 44)
    for title, advanced in (("settings, in params.yaml or here:", False), ("advanced:", True)):
        chosen = [item for item in described if item.about.advanced == advanced]
        if chosen:
            yield ("\n" if advanced else "") + title
        for item in chosen:
            yield from _setting_help(item, width)


def _setting_help(item: settings.Described, width: int) -> Iterator[str]:
    about, name = item.about, f"{item.name}={_written(item.default)}"
    choices = item.choices or tuple(config.choices(about.group) if about.group else ())
    text = about.text + (f" One of {', '.join(choices)}." if choices else "")
    if any(end is not None for end in vars(about.range).values()):
        text += f" Must be {about.range}."
    columns = max(shutil.get_terminal_size().columns, width + 40)
    first, *rest = textwrap.wrap(text, columns - width - 4)
    gap = f"  {name:{width}}  " if len(name) <= width else f"  {name}\n{' ' * (width + 4)}"
    yield gap + first
    yield from (" " * (width + 4) + line for line in rest)


def _written(value: Any) -> str:
    text = str(value) if isinstance(value, str) else dialect.yaml_word(value)
    return "" if text == settings.REQUIRED else text.replace("'", "")


def _summary(module: ModuleType) -> str:
    return _docstring(module).splitlines()[0]


def _docstring(module: ModuleType) -> str:
    """Read a module's docstring from its source: `python -OO` removes docstrings."""
    return ast.get_docstring(ast.parse(inspect.getsource(module))) or ""
