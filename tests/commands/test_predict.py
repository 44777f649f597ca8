"""`predict` gives exactly what evaluate computed, for single files and for many."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from conftest import Run
from PIL import Image

from pipeline.intake.sources import digits

pytestmark = pytest.mark.xdist_group("predict")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    for image in list(digits.images(digits.Config()))[:100]:
        (folder / image.path).parent.mkdir(exist_ok=True)
        (folder / image.path).write_bytes(image.content)
    return folder


def predict(run: Run, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "pipeline", "predict", *words)


def table(text: str, root: Path) -> dict[str, dict[str, str]]:
    rows = csv.DictReader(io.StringIO(text))
    return {str(Path(row["path"]).relative_to(root)): row for row in rows}


def test_a_folder_gives_what_evaluate_computed(repository: Path, run: Run, images: Path) -> None:
    done = predict(run, repository, str(images), "--csv")
    assert done.returncode == 0, done.stderr
    actual = table(done.stdout, images)
    with (repository / "outputs/evaluate/predictions.csv").open() as file:
        expected = {row["path"]: row for row in csv.DictReader(file)}
    both = actual.keys() & expected.keys()
    assert len(actual) == 100
    assert len(both) > 60
    columns = ["prediction", *(f"probability_{digit}" for digit in range(10))]
    for name in both:
        assert [actual[name][c] for c in columns] == [expected[name][c] for c in columns], name
    item = sorted(both)[5]
    alone = table(predict(run, repository, str(images / item), "--csv").stdout, images)
    assert alone[item] == actual[item]


def test_bad_files_are_told_and_do_not_stop_the_rest(
    repository: Path, run: Run, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = next(images.rglob("*.png"))
    done = predict(run, repository, str(tmp_path / "bad.png"), "missing.png", str(good), "--json")
    assert done.returncode == 1
    bad, missing, fine = map(json.loads, done.stdout.splitlines())
    assert bad["error"].startswith("not an image")
    assert missing["error"] == "unreadable: No such file or directory"
    assert fine["prediction"] == good.parent.name
    assert abs(sum(fine["probabilities"].values()) - 1) < 1e-5
    plain = predict(run, repository, str(good))
    assert plain.stdout.startswith(f"{good}\t{good.parent.name} ")
    assert plain.stderr == ""


def test_no_model_and_no_images(repository: Path, run: Run, tmp_path: Path) -> None:
    done = predict(run, repository, str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: no images to classify in")
    done = predict(run, repository, "x.png", "--model", "nowhere.keras")
    assert done.stderr.startswith("error: no model at nowhere.keras")


@pytest.mark.parametrize("words", [("predict", "a.png"), ("export",)])
def test_settings_of_the_registry_are_heeded(
    repository: Path, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    store = f"tracking.uri=sqlite:///{tmp_path / 'other.db'}"
    name, *paths = words
    command = [sys.executable, "-m", "pipeline", name, *(str(tmp_path / path) for path in paths)]
    done = run(repository, *command, "--model", "models:/classifier@champion", store)
    assert done.returncode == 1
    assert (
        f"no model models:/classifier@champion in the registry of sqlite:///{tmp_path / 'other.db'}"
        in done.stderr
    )


def test_patterns_lists_and_standard_input(
    repository: Path, run: Run, images: Path, tmp_path: Path
) -> None:
    some = sorted(images.glob("3/*.png"))
    named = predict(run, repository, *map(str, some), "--csv").stdout
    assert len(named.splitlines()) == len(some) + 1
    assert predict(run, repository, str(images / "3" / "*.png"), "--csv").stdout == named
    listed = images / "list.csv"
    listed.write_text("path,note\n" + "".join(f"3/{path.name},x\n" for path in some))
    assert predict(run, repository, str(listed), "--csv").stdout == named
    listed.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "predict", "-", "--csv"],
        cwd=repository,
        input="\n".join(map(str, some)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == named
    (tmp_path / "other.csv").write_text("file\nx\n")
    done = predict(run, repository, str(tmp_path / "other.csv"))
    assert "needs a column path, got ['file']" in done.stderr
    done = predict(run, repository, str(some[0]), "--json", "--top-k", "2")
    assert len(json.loads(done.stdout)["probabilities"]) == 2
    assert "--top-k must be at least 1" in predict(run, repository, "x", "--top-k", "0").stderr


@pytest.mark.slow
def test_what_a_backbone_was_allowed_travels_with_the_model(
    clone: Path, run: Run, images: Path, tmp_path: Path
) -> None:
    entry = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda pixels: pixels / 255.0)(entry)
    x = keras.layers.Conv2D(16, 3, activation="relu", name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(entry, keras.layers.Dense(3)(x)).save(clone / "lambda.keras")
    params = (clone / "params.yaml").read_text()
    params = params.replace("  use: glyph_cnn ", "  allow_code: true\n  use: keras_file ")
    params = params.replace("conf/backbone/glyph_cnn.yaml", "lambda.keras")
    params = params.replace("cut: block2_conv1", "cut: conv")
    (clone / "params.yaml").write_text(params.replace("epochs: 30", "epochs: 2"))
    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    own = predict(run, clone, str(images / "0"), "--csv")
    assert own.returncode == 0, own.stderr
    elsewhere = tmp_path / "theirs.keras"
    elsewhere.write_bytes((clone / "outputs/finetune/model.keras").read_bytes())
    words = (str(images / "0"), "--csv", "--model", str(elsewhere))
    refused = predict(run, clone, *words)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {elsewhere} contains code, which is not run")
    assert predict(run, clone, *words, "--allow-code").stdout == own.stdout
