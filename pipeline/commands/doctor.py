"""Check what a run needs: packages, weights, images, disk, memory, git, DVC, tracking, ports.

Prints one line for each check, with the remedy if it fails. The exit code is 1 if there is an
error. `dvc repro` checks images, weights and disk before anything else.

    python -m pipeline doctor
"""

from collections.abc import Callable, Iterator

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.setup import checks
from pipeline.setup.checks import Check, Level


def run(overrides: list[str], compose: Callable[[list[str]], Config]) -> int:
    """Print every check as it is made; returns 1 if one is an error."""
    failed = 0
    for check in _every(overrides, compose):
        print(f"{check.level:8} {check.name:14} {check.text}", flush=True)
        failed += check.level == Level.error
    if failed:
        print(f"{failed} to fix before dvc repro can run")
    return int(failed > 0)


def _every(overrides: list[str], compose: Callable[[list[str]], Config]) -> Iterator[Check]:
    yield checks.tensorflow()
    try:
        config = compose(overrides)
    except InputError as error:
        yield Check(
            "params.yaml", f"{error}; or replace the file: init IMAGES --force", Level.error
        )
        return
    yield Check("params.yaml", "every setting is valid", Level.ok)
    yield from checks.every(config)
