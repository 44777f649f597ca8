"""README and docs/ are true: commands parse, settings exist, the diffs apply and run."""

import itertools
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import PROJECT, Run, copied
from dvc.cli import parse_args
from omegaconf import OmegaConf
from PIL import Image

from pipeline import config, runner
from pipeline.intake.sources import archive, csv, tfds
from pipeline.networks.backbones import keras_application, keras_file, keras_hub

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
EXTENDING = PROJECT / "docs" / "extending.md"
KINDS = {"data": (archive, csv, tfds), "backbone": (keras_application, keras_file, keras_hub)}


def blocks(page: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def commands(page: Path) -> list[str]:
    """The command lines of a page, without comments; several on one line are separated."""
    text = "\n".join(blocks(page, "")).replace("\\\n", " ")
    inline = re.findall(r"`((?:python -m pipeline|make|dvc exp) [^`]+)`", page.read_text())
    lines = [line.partition("  #")[0].strip() for line in [*text.splitlines(), *inline]]
    parts = [part.strip() for line in lines for part in re.split(r"&&|;", line)]
    return [part for part in parts if re.match(r"(python -m pipeline|dvc|make) ", part)]


def test_readme_is_short() -> None:
    assert len(PAGES[0].read_text().split()) <= 1000
    assert len(PAGES) == 11
    linked = set(re.findall(r"\]\((docs/\w+\.md)\)", PAGES[0].read_text()))
    assert linked == {str(page.relative_to(PROJECT)) for page in PAGES[1:]}


@pytest.mark.parametrize("page", [p for p in PAGES if p != EXTENDING], ids=lambda page: page.stem)
def test_commands_parse(
    page: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("SWEEP_STORAGE", "sqlite")
    examples = commands(page)
    assert examples
    makefile = (PROJECT / "Makefile").read_text()
    for line in examples:
        program, *words = shlex.split(re.sub(r"\s\[--[\w-]+\]", "", line))
        if program == "make":
            for word in words:
                name, given, _ = word.partition("=")
                pattern = rf"\$\({name}\)" if given else rf"^{name}:"
                assert re.search(pattern, makefile, re.MULTILINE), line
        elif program == "dvc":
            parse_args(words)
            for name, word in itertools.pairwise(words):
                if name == "-S":
                    # DVC adds with + what params.yaml does not list.
                    config.compose([re.sub(r"choice\(([^,]+),.*\)", r"\1", word.lstrip("+"))])
        elif words[2:] == ["--help"]:
            assert "COMMAND" in runner.usage()
        elif "--help" in words:
            with pytest.raises(SystemExit):
                runner.run(words[2], words[3:])
        else:
            assert runner.run(words[2], [*words[3:], "--cfg", "job"]) == 0, line
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_yaml_composes(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    default = OmegaConf.load("params.yaml")
    for block in blocks(page, "yaml"):
        OmegaConf.save(OmegaConf.merge(default, yaml.safe_load(block)), "params.yaml")
        composed = OmegaConf.create(config.as_yaml())
        for name, value in OmegaConf.create(yaml.safe_load(block)).items():
            for key in value:
                assert OmegaConf.select(composed, f"{name}.{key}") is not None or value[key] is None
        config.compose()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_exist(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    settings = {item.name for section in config.SECTIONS for item in config.described(section)}
    for section, modules in KINDS.items():
        for module in modules:
            settings |= {f"{section}.{name}" for name in vars(module.Config())}
    settings |= {"data.md5"}  # a tag of runs
    sections = "|".join(name for name in config.SECTIONS if name not in ("seed", "threads"))
    for parts in re.findall(rf"`({sections})\.(\w+)[^`]*`", page.read_text()):
        name = ".".join(parts)
        added = name in page.read_text().split("```diff")[0] or page != EXTENDING
        exists = name in settings or any(full.startswith(f"{name}.") for full in settings)
        assert exists or not added, name


def diffs() -> dict[str, tuple[str, str]]:
    """Title of a change -> its diff and the command that shows it."""
    parts = re.split(r"^## ", EXTENDING.read_text(), flags=re.MULTILINE)[1:-1]
    return {
        part.splitlines()[0]: (
            re.findall(r"```diff\n(.*?)```", part, re.DOTALL)[0],
            re.findall(r"```\n(python .*?)\n```", part)[0],
        )
        for part in parts
    }


@pytest.mark.slow
@pytest.mark.parametrize("title", diffs())
def test_a_change_applies_and_runs(title: str, repository: Path, tmp_path: Path, run: Run) -> None:
    clone = copied(repository, tmp_path / "clone")
    diff, command = diffs()[title]
    table = dict(re.findall(r"^\| (.+?) \| (.+) \|$", EXTENDING.read_text(), re.MULTILINE))
    new = diff.count("new file mode")
    edited = diff.count("diff --git") - new
    assert table[f"{title[0].lower()}{title[1:]}"] == f"{new} | {edited}"
    (clone / "change.patch").write_text(diff)
    for words in (["git", "apply", "change.patch"],):
        done = run(clone, *words)
        assert done.returncode == 0, done.stderr
    pixels = np.random.default_rng(0).integers(0, 255, (30, 8, 8, 3)).astype(np.uint8)
    np.savez(clone / "images.npz", images=pixels, labels=np.arange(30) % 2)
    enough = ["prepare.train_per_class=5", "prepare.val_per_class=5"]
    stars = [f"{n}.png,{1 + n % 5}" for n in range(30)]
    (clone / "stars.csv").write_text("\n".join(["path,stars", *stars]))
    for n, image in enumerate(pixels):
        Image.fromarray(image).save(clone / f"{n}.png")
    fractions = ["prepare.train_per_class=null", "prepare.val_per_class=null"]
    counts = enough if "npz" in command else fractions if "stars" in command else []
    words = [*shlex.split(command)[1:], *counts]
    done = run(clone, sys.executable, *words, forked=False)
    assert done.returncode == 0, done.stderr
    if title == "A setting of a stage":
        done = run(clone, sys.executable, *words[:-1], "evaluate.min_accuracy=0.999", forked=False)
        assert done.returncode == 1
        assert "accuracy must be at least evaluate.min_accuracy=0.999" in done.stderr
