"""Every choice in conf/ and every preset composes, and has a description."""

from pathlib import Path

import pytest

from pipeline import config

PROJECT = Path(__file__).parents[2]
CHOICES = [
    (group, path.stem)
    for group in ("data", "backbone", "head", "augment", "cluster")
    for path in sorted((PROJECT / "conf" / group).glob("*.yaml"))
]
PRESETS = sorted((PROJECT / "conf" / "experiment").glob("*.yaml"))
REQUIRED = {
    "keras_hub": ["backbone.preset=./folder"],
    "archive": ["data.sha256=0"],
    "tfds": ["data.name=beans"],
    "keras_application": ["backbone.name=Xception"],
}


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_a_choice_composes(
    group: str, choice: str, cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cwd / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    composed = config.compose([f"{group}.use={choice}", *REQUIRED.get(choice, [])])
    assert getattr(composed, group).use == choice
    assert not isinstance(getattr(composed, group), dict), "the choice has no schema"
    assert (PROJECT / "conf" / group / f"{choice}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_composes_and_says_how_to_run_it(preset: Path, cwd: Path) -> None:
    text = preset.read_text()
    assert f"cp conf/experiment/{preset.name} params.yaml && dvc repro" in text
    assert "accuracy" in text.split("seed:")[0], "the header gives the expected result"
    (cwd / "params.yaml").write_text(text)
    composed = config.compose()
    assert composed.data.path
    default = (PROJECT / "params.yaml").read_text()
    sections = [line.split(":")[0] for line in default.splitlines() if line[:1].isalpha()]
    assert all(f"\n{section}:" in f"\n{text}" for section in sections)
