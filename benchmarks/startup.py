"""Start-up: a `dvc repro` with nothing to do, and each stage until its work begins.

python -m benchmarks.startup [ROUNDS]
"""

import sys
import time
from pathlib import Path
from statistics import median

from benchmarks import side_by_side, workshop
from pipeline.stages import STAGES

# Runs a stage as `python -m pipeline STAGE` does, up to the call of its `run`.
UNTIL_RUN = """
import importlib, sys, time
import psutil
stage = sys.argv[1]
module = importlib.import_module(f"pipeline.stages.{stage}")
def reached(*_, **__):
    print(time.time() - psutil.Process().create_time(), flush=True)
    raise SystemExit(0)
module.run = reached
from pipeline.__main__ import main
main([stage, "tracking.enabled=" + sys.argv[2]])
"""


def main(rounds: int) -> None:
    actual: dict[str, list[float]] = {}
    with workshop.copy() as folder:
        workshop.run(folder, "dvc", "repro")
        for _ in range(rounds):
            started = time.perf_counter()
            workshop.run(folder, "dvc", "repro")
            actual.setdefault("dvc repro, nothing to do", []).append(time.perf_counter() - started)
            for stage in STAGES:
                for tracking in ("true", "false"):
                    message = workshop.run(folder, sys.executable, "-c", UNTIL_RUN, stage, tracking)
                    name = f"{stage}, {'' if tracking == 'true' else 'not '}tracked"
                    actual.setdefault(name, []).append(float(message.splitlines()[-1]))
    lines = [
        f"`python -m benchmarks.startup {rounds}`: seconds from the start of the process until the",
        "stage is called (Python, Hydra, MLflow; TensorFlow where the stage needs it before).",
        "",
        "| | median (range) |",
        "|---|---|",
        *(f"| {name} | {side_by_side.middle(times)} |" for name, times in actual.items()),
    ]
    slowest = max(median(times) for times in actual.values())
    print(f"slowest: {slowest:.1f} s", file=sys.stderr)
    side_by_side.write("Start-up", "\n".join(lines))


if __name__ == "__main__":
    assert Path("params.yaml").exists(), "run it in the project's folder"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
