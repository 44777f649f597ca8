"""Names in plots are drawn as they stand, or written out: no boxes, no formulas, no warnings."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation import figures, fonts

NAMES = ["日本 #1", "C++ (50%)", "$x$ and $y", "a_b^c", "кот", "مرحبا", "한국", "ไทย", "\U000f0000"]


def test_no_name_is_a_formula_a_box_or_a_warning(tmp_path: Path) -> None:
    scores = {name: {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3} for name in NAMES}
    picture = np.zeros((4, 4, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.confusion_matrix(
            tmp_path / "a.png", np.eye(len(NAMES), dtype=int), NAMES, len(NAMES)
        )
        figures.per_class_bars(tmp_path / "b.png", scores)
        figures.gallery(tmp_path / "c.png", [(picture, f"{name}\nx") for name in NAMES], 4, "all")
    assert {Image.open(path).format for path in tmp_path.glob("*.png")} == {"PNG"}


def test_japanese_is_drawn_on_every_machine() -> None:
    assert fonts.readable("日本 ねこ カメラ") == "日本 ねこ カメラ"


def test_what_no_font_has_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert fonts.readable("a\U000f0001b") == "a\\U000f0001b"
    assert fonts.readable("\U000f0002") == "\\U000f0002"
    assert capsys.readouterr().err.count("no font here has it") <= 1, "once a script"
