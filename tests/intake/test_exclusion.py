"""prepare.exclude: listed images are left out; unreadable lists are reported."""

import csv
import sys
from pathlib import Path

import pytest
from conftest import Run

from pipeline.data.manifest import Row
from pipeline.errors import InputError
from pipeline.intake import soundness

ROWS = [Row(f"cat/{n}.jpg", "cat", "", "", 1, 1, "ok") for n in range(3)]


def test_listed_images_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "exclude.csv"
    path.write_text("\ufefflabel,path,probability\ncat,cat/1.jpg,0.1\ncat,cat/9.jpg,0.2\n")
    assert soundness.excluded(path, ROWS) == {"cat/1.jpg": f"excluded by {path}"}
    assert "1 of 2 paths" in capsys.readouterr().out
    path.write_text("path\n")
    assert soundness.excluded(path, ROWS) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file "),
        (b"", "with a column path"),
        (b"label\ncat\n", "has label"),
        (b"\xff\xfe\x00path\n", "csv file in UTF-8"),
    ],
)
def test_what_is_no_list(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "exclude.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        soundness.excluded(path, ROWS)


def test_an_excluded_image_is_in_no_split(project: Path, run: Run) -> None:
    words = [sys.executable, "-m", "pipeline", "prepare", "tracking.enabled=false"]
    assert run(project, *words).returncode == 0
    with (project / "outputs/prepare/manifest.csv").open() as file:
        before = list(csv.DictReader(file))
    gone = [row["path"] for row in before[:5]]
    (project / "mine.csv").write_text("\n".join(["path", *gone]) + "\n")
    done = run(project, *words, "prepare.exclude=mine.csv")
    assert done.returncode == 0, done.stderr
    assert f"{len(before) - 5} images" in done.stdout
    with (project / "outputs/prepare/quarantine.csv").open() as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert listed == dict.fromkeys(gone, "excluded by mine.csv")
