"""Check a certificate: rerun everything here, and compare line by line.

Runs `dvc repro -f` in this clone, which needs the same data. Outputs that are there already are
compared first. Exit code 1 if anything differs; on another kind of processor, last bits may differ,
but no label.

    python -m pipeline verify certificate.json
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.release import certificate
from pipeline.release.certificate import Line


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the certificate and `--no-rerun`."""
    parser.add_argument("certificate", type=Path, help="a certificate.json")
    parser.add_argument(
        "--no-rerun",
        action="store_true",
        help="only compare what is here: code, environment and the present outputs",
    )


def run(config: Config, options: argparse.Namespace) -> int:
    """Print a line for each section; returns 1 if any differs."""
    certified = certificate.read(options.certificate)
    differing = []
    for line in _compared(config, certified, rerun=not options.no_rerun):
        print(f"{line.name:12} {'ok     ' if line.same else 'DIFFERS'} {line.text}", flush=True)
        if not line.same:
            differing.append(line.name)
    if differing:
        print(f"not verified: {', '.join(dict.fromkeys(differing))}")
        return 1
    print(f"verified: {options.certificate}")
    return 0


def _compared(config: Config, certified: Mapping[str, Any], *, rerun: bool) -> Iterator[Line]:
    from pipeline.networks import runtime

    yield certificate.intact(certified)
    if present := certificate.on_disk():
        line = certificate.section("outputs", certified["outputs"], present)
        yield Line("outputs here", line.same, line.text)
    started = perf_counter()
    if rerun:
        print("rerunning every stage: dvc repro -f", flush=True)
        if subprocess.run([sys.executable, "-m", "dvc", "repro", "-f"], check=False).returncode:
            raise InputError("dvc repro failed: fix the error above, then run verify again")
    runtime.configure(config.seed, config.threads)
    minutes = (perf_counter() - started) / 60
    actual = certificate.make(config.flat(), runtime.versions()["processor"], minutes)
    yield from certificate.compare(certified, actual)
    if rerun:
        before = certified.get("minutes")
        text = f"{before:.1f}" if isinstance(before, float) else "not recorded"
        print(f"rerun in {minutes:.1f} minutes (certified: {text})")
