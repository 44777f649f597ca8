"""The label file loses nothing, and data.use=csv reads it as it is."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.intake import label_file, sources
from pipeline.intake.sources.csv import Config
from pipeline.teaching import pool
from pipeline.teaching.labels import LabelFile, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path / "labels.csv"


def listed(path: Path) -> dict[str, str]:
    return {item.path: item.label for item in sources.images(Config(path=str(path)))}


def test_the_last_line_about_an_image_counts(path: Path) -> None:
    labels = LabelFile(path)
    labels.add("a.png", "cat", 1.25)
    labels.add("b.png", "dog", 2)
    labels.add("a.png", "dog", 1)
    labels.add("c.png", "cat", 1)
    labels.add("c.png", "", 1)
    assert labels.labels == {"a.png": "dog", "b.png": "dog"} == listed(path)
    left_out: list[sources.Sample] = []
    list(sources.images(Config(path=str(path)), left_out=left_out))
    assert [(item.path, item.left_out) for item in left_out] == [("c.png", "without label")]
    assert path.read_text().splitlines()[0] == "path,label,time,seconds"
    assert len(path.read_text().splitlines()) == 6, "nothing is ever removed"


def test_undo_restores_what_was_there(path: Path) -> None:
    labels = LabelFile(path)
    labels.add("a.png", "cat", 1)
    labels.add("a.png", "dog", 1)
    assert labels.undo(("a.png", "b.png", "c.png")) == "a.png"
    assert labels.labels == {"a.png": "cat"}
    assert labels.undo(("a.png", "b.png", "c.png")) == "a.png"
    assert labels.undo(("a.png", "b.png", "c.png")) is None
    assert labels.labels == {} == listed(path)


def test_a_second_page_is_refused_and_a_later_one_goes_on(path: Path) -> None:
    first = LabelFile(path)
    first.add("a.png", "cat, big", 1)
    with pytest.raises(InputError, match="is being labelled by another process"):
        LabelFile(path)
    first.close()
    second = LabelFile(path)
    assert second.labels == {"a.png": "cat, big"} == listed(path)
    assert second.undo(("a.png", "b.png", "c.png")) == "a.png"


@pytest.mark.parametrize(
    "end", ["b.png,d", "b.png", '"b', "b.png,caf\udcc3", "b.png,dog,2026-01-01T00:00:00+00:00,1"]
)
def test_an_incomplete_last_line_is_removed(path: Path, end: str) -> None:
    first = LabelFile(path)
    first.add("a.png", "cat", 1)
    first.close()
    before = path.read_bytes()
    path.write_bytes(before + end.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"last line of .* is incomplete"):
        listed(path)
    labels = LabelFile(path)
    assert labels.damaged
    assert path.read_bytes() == before
    assert labels.labels == {"a.png": "cat"}


def test_a_last_line_without_its_end_is_a_label(path: Path) -> None:
    """An editor may remove the last line's end."""
    line = "b.png,dog,2026-01-01T00:00:00+00:00,1.0"
    path.write_text(f"path,label,time,seconds\na.png,cat,2026-01-01T00:00:00+00:00,2.0\n{line}")
    assert listed(path) == {"a.png": "cat", "b.png": "dog"}
    labels = LabelFile(path)
    assert not labels.damaged
    labels.add("c.png", "cat", 1)
    assert listed(path) == labels.labels == {"a.png": "cat", "b.png": "dog", "c.png": "cat"}


@pytest.mark.parametrize("seed", range(60))
def test_a_restart_changes_no_label_and_no_undo(path: Path, seed: int) -> None:
    rng, images = np.random.default_rng(seed), ("a.png", "b.png", "c.png")
    live = LabelFile(path)
    for _ in range(8):
        if rng.random() < 0.3:
            live.undo(images)
        else:
            live.add(str(rng.choice(images)), str(rng.choice(["cat", "dog"])), 0)
    live.close()
    again = LabelFile(path)
    assert again.labels == live.labels == listed(path)
    expected = []
    while name := again.undo(images):
        expected.append((name, dict(again.labels)))
    again.close()
    assert again.labels == {}
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: -len(expected) or None]))
    live = LabelFile(path)
    assert [(live.undo(images), dict(live.labels)) for _ in expected] == expected


def test_a_failed_undo_takes_nothing_back(path: Path) -> None:
    labels = LabelFile(path)
    labels.add("a.png", "cat", 1)
    labels.add("b.png", "dog", 1)
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    with pytest.raises((OSError, InputError)):
        labels.undo(["a.png", "b.png"])
    path.rmdir()
    path.write_bytes(content)
    assert labels.undo(["a.png", "b.png"]) == "b.png"
    assert labels.labels == {"a.png": "cat"} == listed(path)


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("x")])
def test_a_file_that_another_program_changed(path: Path, change: Callable[[Path], object]) -> None:
    labels = LabelFile(path)
    labels.add("a.png", "cat", 1)
    change(path)
    with pytest.raises(InputError, match="was changed by another program: start label again"):
        labels.add("b.png", "cat", 1)


def test_another_spelling_stops_at_the_start(path: Path) -> None:
    lines = ["path,label,time,seconds", "./a.png, Cat,1,1.0", "b.png,dog,1,1.0"]
    path.write_text("\n".join([*lines, ""]))
    labels = LabelFile(path)
    assert labels.labels == {"a.png": "Cat", "b.png": "dog"}
    labels.add("a.png", "dog", 1)
    assert list(listed(path).values()) == ["dog", "dog"]
    labels.close()
    path.write_text("\n".join([*lines, "c.png,cat,1,1.0", ""]))
    with pytest.raises(InputError, match=r"labels.csv: class names must differ .* 'Cat' and 'cat'"):
        LabelFile(path)


def test_undo_goes_on_after_a_restart_and_stays_in_the_folder(path: Path) -> None:
    first = LabelFile(path)
    for name, label in (("a.png", "cat"), ("a.png", "dog"), ("b.png", "cat"), ("c.png", "cat")):
        first.add(name, label, 1)
    assert first.undo(["a.png", "b.png"]) == "b.png"
    first.close()
    second = LabelFile(path)
    assert second.undo(["a.png", "b.png"]) == "a.png"
    assert second.labels == {"a.png": "cat", "c.png": "cat"} == listed(path)
    assert second.undo(["a.png", "b.png"]) == "a.png"
    assert second.undo(["a.png", "b.png"]) is None
    assert listed(path) == {"c.png": "cat"}
    second.add("c.png", "Cat", 1)  # the only image of its class
    assert listed(path) == {"c.png": "Cat"}


def test_a_link_is_the_same_file(path: Path) -> None:
    first = LabelFile(path)
    first.add("a.png", "cat", 1)
    link = path.with_name("link.csv")
    link.symlink_to(path.name)
    with pytest.raises(InputError, match="is being labelled by another process"):
        LabelFile(link)
    first.close()


def test_a_full_disk_leaves_no_half_line(path: Path) -> None:
    labels = LabelFile(path)
    labels.add("a.png", "cat", 1)
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            labels.add("b.png", "dog", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    labels.add("c.png", "dog", 1)
    assert listed(path) == {"a.png": "cat", "c.png": "dog"}


def test_names_that_a_csv_file_cannot_hold_are_accounted_for(tmp_path: Path) -> None:
    good = ["a b.png", "\N{LATIN SMALL LETTER E WITH ACUTE}.png", "e\N{COMBINING ACUTE ACCENT}.png"]
    bad = ["new\nline.png", " space.png", "\u2028.png", "soft\u00ad.png", os.fsdecode(b"\xff.png")]
    for shade, name in enumerate([*good, *bad]):
        Image.fromarray(np.full((8, 8), shade, np.uint8)).save(tmp_path / name, "PNG")
    (tmp_path / "link.png").symlink_to(tmp_path / "a b.png")
    samples = pool.listed(tmp_path, tmp_path / "labels.csv")
    assert len(samples) == len(good) + len(bad) + 1
    usable = [sample for sample in samples if not sample.left_out]
    assert sorted(sample.path for sample in usable) == sorted([*good, "link.png"])
    labels = LabelFile(tmp_path / "labels.csv")
    for sample in usable:
        labels.add(sample.path, "cat", 1)
    read_again = {i.path: i.read() for i in sources.images(Config(path=str(labels.path)))}
    assert read_again == {sample.path: sample.read() for sample in usable}


@pytest.mark.parametrize("beginning", [b"", b"path,la", b"path,label,time,seconds"])
def test_a_header_that_was_not_finished(path: Path, beginning: bytes) -> None:
    path.write_bytes(beginning)
    labels = LabelFile(path)
    labels.add("a.png", "cat", 1)
    assert listed(path) == {"a.png": "cat"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na.png,cat\n", "must have the columns path, label, time, seconds"),
        (b"path,label,time,seconds\na.png,cat\n", "line 2 must have 4 cells, got 2"),
        (b"path,label,time,seconds\na.png,\xff,1,1\n", "must be a csv file in UTF-8"),
    ],
)
def test_other_files_are_not_touched(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        LabelFile(path)
    assert path.read_bytes() == content


def test_images_that_were_held_out_become_the_test_split(path: Path) -> None:
    names = [f"folder/{number}.png" for number in range(200)]
    labels = LabelFile(path)
    for place, name in enumerate(names):
        labels.add(name, f"class {place % 4}", 1)
    labels.add(names[0], "", 1)
    tested = [item.path for item in sources.images(Config(path=str(path))) if item.split == "test"]
    expected = {names[place] for place in label_file.held_out(names)} - {names[0]}
    assert set(tested) == expected
    assert 20 < len(tested) < 60
    assert {item.split for item in sources.images(Config(path=str(path)))} == {"test", None}


@pytest.mark.parametrize("count", [3, 4, 30])
@pytest.mark.parametrize("held_out", [True, False])
def test_every_class_is_tested_and_trained_on(path: Path, count: int, held_out: bool) -> None:
    names = [f"{number}.png" for number in range(1000)]
    drawn = set(label_file.held_out(names))
    own = [names[place] for place in range(1000) if (place in drawn) == held_out][:count]
    labels = LabelFile(path)
    for name in own:
        labels.add(name, "rare", 1)
    tested = sum(item.split == "test" for item in sources.images(Config(path=str(path))))
    assert tested == (count - 2 if held_out else 1)


@pytest.mark.parametrize("name", ["cat|dog", "a\nb", " cat", "Cat", "CAT", "x" * 201, "\ud800"])
def test_names_that_would_be_read_otherwise(path: Path, name: str) -> None:
    labels = LabelFile(path)
    labels.add("a.png", "cat", 1)
    with pytest.raises(InputError):
        labels.add("b.png", name, 1)
    assert listed(path) == {"a.png": "cat"}


WRITES = """
import sys
from pathlib import Path
from pipeline.teaching.labels import LabelFile
labels = LabelFile(Path(sys.argv[1]))
for number in range(100_000):
    labels.add(f"{number}.png", "cat", 1)
    print(number, flush=True)
"""


def test_a_killed_process_loses_no_label(path: Path) -> None:
    command = [sys.executable, "-c", WRITES, str(path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    time.sleep(1)
    writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    confirmed = [line for line in writer.stdout.read().split() if line]
    writer.wait()
    labels = {name for name, _, _ in read(path)}
    assert all(f"{number}.png" in labels for number in confirmed)
    LabelFile(path).add("a.png", "dog", 1)
