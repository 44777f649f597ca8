"""Run a stage or a command: name + words of the command line -> what its `run` asks for.

A stage is a module of `pipeline.stages`, a command one of `pipeline.commands`. Its docstring is
its help; the names of `run`'s parameters say what it is given.
"""

import argparse
import ast
import importlib
import inspect
import pkgutil
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

from pipeline import commands, config, settings, stages
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
"""Parameter of a stage's `run` -> the settings behind it."""


def run(name: str, words: Sequence[str]) -> int:
    """Run a stage or a command; returns the exit code.

    Args:
        name: Of the stage or command.
        words: The command line after it.

    Raises:
        InputError: There is no such command, or it does not take these words.
    """
    module = _module(name)
    if {"-m", "--multirun"} & set(words):
        raise InputError(
            "one run at a time, got --multirun: queue several with "
            "dvc exp run --queue -S 'finetune.learning_rate=choice(1e-4,1e-3)'"
        )
    overrides = [word for word in words if config.is_override(word)]
    parser = _parser(name, module)
    options = parser.parse_args([word for word in words if word not in overrides])
    overrides += getattr(options, "settings", [])  # whatever has not the form of one
    if options.cfg:
        print(config.as_yaml(overrides), end="")
        return 0
    if name in STAGES:
        run_stage(name, config.compose(overrides))
        return 0
    given = {"options": options, "overrides": overrides, "compose": config.compose}
    asked = inspect.signature(module.run).parameters
    if set(asked) - set(given):
        composed = config.compose(overrides)
        given |= {**vars(composed), "config": composed}
    return int(_by_signature(module.run, given) or 0)


def run_stage(stage: str, composed: Config) -> None:
    """Run one stage: locked, tracked, its output put in place at the very end."""
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
            given = {
                **vars(composed),
                "config": getattr(composed, stage),
                "frozen": composed.frozen,
                "unknown": composed.serve.unknown,
                "coverage": composed.serve.coverage,
                "folders": outputs.Folders(aside),
                "log": tracked.log,
            }
            metrics = _by_signature(_module(stage).run, given)
        tracked.finish(metrics, out)


def usage() -> str:
    """Every stage and command, in a line each."""
    lines = [f"{_PROGRAM} COMMAND [section.key=value ...]", "", "Stages, which dvc repro runs:"]
    lines += [f"  {name:18}{_summary(_module(name))}" for name in STAGES]
    lines += ["", "Commands:"]
    lines += [f"  {name:18}{_summary(_module(name))}" for name in _commands()]
    lines += ["", f"{_PROGRAM} COMMAND --help shows what it takes, --cfg job its whole config."]
    return "\n".join(lines)


def _by_signature(function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Call a function with the values that its parameters name."""
    return function(**{name: given[name] for name in inspect.signature(function).parameters})


def _module(name: str) -> ModuleType:
    package = stages if name in STAGES else commands
    if name not in (*STAGES, *_commands()):
        known = ", ".join((*STAGES, *_commands()))
        raise InputError(f"the command must be one of {known}, got {name!r}")
    return importlib.import_module(f"{package.__name__}.{name}")


def _commands() -> list[str]:
    names = []
    for module in pkgutil.iter_modules(commands.__path__):
        if hasattr(importlib.import_module(f"{commands.__name__}.{module.name}"), "run"):
            names.append(module.name)
    return names


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}: {self.prog} --help shows what it takes")


class _Help(argparse.Action):
    """Prints the help, which is not made before it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        module = _module(parser.prog.rpartition(" ")[2])
        lines = list(_settings_help(sections_of(module)))
        parser.epilog = "\n".join(["settings, in params.yaml or here:", *lines]) if lines else None
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
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this and stop")
    parser.add_argument("--cfg", choices=["job"], help="show the whole config and stop")
    return parser


def sections_of(module: ModuleType) -> list[str]:
    """The sections and settings that a command names, or that its `run` is given."""
    named: tuple[str, ...] | None = getattr(module, "SECTIONS", None)
    if named is not None:
        return list(named)
    own = module.__name__.rpartition(".")[2]
    read = {"config": (own,), **_READ, **{name: (name,) for name in SECTIONS}}
    given = inspect.signature(module.run).parameters
    return list(dict.fromkeys(one for name in given for one in read.get(name, ())))


def _settings_help(sections: Sequence[str]) -> Iterator[str]:
    """A described line a setting: name, default, choices."""
    try:
        composed = config.compose()
    except InputError:  # shown where there is no project, too
        composed = None
    shown = [one for section in sections for one in config.described(section, composed)]
    names = [f"{one.name}={_written(one.default)}" for one in shown]
    width = min(max(map(len, names), default=0), 44)
    columns = max(shutil.get_terminal_size().columns, width + 40)
    for name, one in zip(names, shown, strict=True):
        takes = one.choices or tuple(config.choices(one.about.group) if one.about.group else ())
        text = one.about.text + (f" One of {', '.join(takes)}." if takes else "")
        if any(end is not None for end in vars(one.about.range).values()):
            text += f" Must be {one.about.range}."
        first, *rest = textwrap.wrap(text, columns - width - 4)
        gap = f"  {name:{width}}  " if len(name) <= width else f"  {name}\n{' ' * (width + 4)}"
        yield gap + first
        yield from (" " * (width + 4) + line for line in rest)


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value == settings.REQUIRED else str(value).replace("'", "")


def _summary(module: ModuleType) -> str:
    return _docstring(module).splitlines()[0]


def _docstring(module: ModuleType) -> str:
    """A module's docstring, also where `python -OO` has removed it."""
    return ast.get_docstring(ast.parse(inspect.getsource(module))) or ""
