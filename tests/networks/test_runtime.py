"""Setup that every command does before TensorFlow's first operation."""

import sys
from pathlib import Path

from conftest import Run


def test_keras_loads_no_library_that_only_others_need(run: Run, tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.networks import runtime; runtime.configure(0, 2)\n"
        "print(sorted({'keras', 'matplotlib', 'sklearn'} & sys.modules.keys()))\n"
        "import matplotlib.pyplot, sklearn.metrics\n"
    )
    done = run(tmp_path, sys.executable, "-c", code)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "['keras']\n")
