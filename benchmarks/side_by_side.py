"""Run measurements alternately, each in its own process, and keep their table in RESULTS.md.

A benchmark names its measurements; each is run once a round, round after round, so that what
else the machine does falls on all of them alike.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).with_name("RESULTS.md")
Figures = dict[str, float]


def in_turn(module: str, names: list[str], rounds: int) -> dict[str, list[Figures]]:
    """The figures of each measurement, a list entry a round."""
    actual: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            command = [sys.executable, "-m", module, "--one", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{module} {name} failed:\n{done.stderr[-3000:]}")
            actual[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1} of {rounds}: {name} {actual[name][-1]}", file=sys.stderr)
    return actual


def start(module: str, measure: Callable[[str], Figures], main: Callable[[int], None]) -> None:
    """Run one measurement, or with the number of rounds on the command line all of them."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
        return
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)


def middle(values: list[float], form: str = ".2f") -> str:
    """Median and range; the value alone if there is one."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    low, high = min(values), max(values)
    return f"{median(values):{form}} ({low:{form}} to {high:{form}})"


def ratios(actual: dict[str, list[Figures]], over: str, under: str, key: str) -> list[float]:
    """`over` by `under`, round by round."""
    pairs = zip(actual[over], actual[under], strict=True)
    return [item[key] / other[key] for item, other in pairs]


def write(title: str, text: str) -> None:
    """Put a section into RESULTS.md in place of the one with the same title; print it, too."""
    print(text)
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    sections = before.split("\n## ")
    fresh = f"{title}\n\n{text.strip()}\n"
    places = [n for n, section in enumerate(sections) if section.startswith(f"{title}\n")]
    if places:
        sections[places[0]] = fresh
    else:
        sections[-1] = sections[-1].rstrip() + "\n"
        sections.append(fresh)
    RESULTS.write_text("\n## ".join(sections), encoding="utf-8")
