"""The classifier in Python: the answers of predict, in the project and in other folders."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, Run
from PIL import Image

from pipeline import Classifier
from pipeline.errors import InputError

MODEL = "outputs/finetune/model.keras"
NOTEBOOK = PROJECT / "docs" / "classifier.ipynb"


def test_all_forms_of_an_image_get_the_answer_of_predict(
    repository: Path, run: Run, image_folder: Path
) -> None:
    path = image_folder / "dark" / "0.png"
    image = Image.open(path)
    done = run(repository, sys.executable, "-m", "pipeline", "predict", str(path), "--json")
    expected = json.loads(done.stdout)
    classifier = Classifier.load(repository / MODEL)
    table = classifier.predict([str(path), path, path.read_bytes(), image, np.asarray(image)])
    assert table["image"].tolist() == [str(path), str(path), "", "", ""]
    for row in table.to_dict("records"):
        assert row["error"] is None
        assert row["prediction"] == expected["prediction"]
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
        assert row["known"] == expected["known"]
    assert len(classifier.predict(path)) == 1
    assert classifier.classes == list(expected["probabilities"])


def kinds_of_files(folder: Path) -> list[Path]:
    """Write files whose decoding considers more than their pixels as PIL gives them."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 1200).reshape(30, 40)
    grey, noise = ramp.astype(np.uint8), rng.integers(0, 255, (30, 40, 3), np.uint8)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(grey).convert("RGB").save(folder / "rotated.jpg", exif=rotated)
    Image.fromarray(np.dstack([noise, grey])).save(folder / "alpha.png")
    Image.fromarray(noise).quantize(16).save(folder / "palette.png", transparency=3)
    Image.fromarray((ramp * 200).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(ramp.astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(noise).convert("CMYK").save(folder / "cmyk.jpg")
    return sorted(folder.iterdir())


def test_a_pil_image_is_what_its_file_is(repository: Path, tmp_path: Path) -> None:
    files = kinds_of_files(tmp_path)
    classifier = Classifier.load(repository / MODEL)
    by_path = classifier.predict(files)
    by_image = classifier.predict([Image.open(file) for file in files])
    assert by_path["error"].isna().all()
    assert by_image["probabilities"].tolist() == by_path["probabilities"].tolist()
    whole = (tmp_path / "rotated.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:-100])
    cut = classifier.predict([Image.open(tmp_path / "cut.jpg"), files[0]])
    assert cut["error"][0].startswith("damaged: image file is truncated")
    assert cut["error"][1] is None


def test_unreadable_images_have_an_error_and_no_prediction(repository: Path) -> None:
    table = Classifier.load(repository / MODEL).predict([b"no image", "missing.png"])
    assert table["prediction"].tolist() == [None, None]
    assert table["error"].str.startswith(("not an image", "unreadable")).all()


def test_an_explanation_is_an_image(repository: Path, image_folder: Path) -> None:
    path = image_folder / "dark" / "0.png"
    explanation = Classifier.load(repository / MODEL).explain(path)
    assert (explanation.shape, explanation.dtype) == ((8, 8, 3), np.uint8)


def test_models_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match=r"no model at no\.keras"):
        Classifier.load("no.keras")
    with pytest.raises(InputError, match="pass tracking_uri, or set MLFLOW_TRACKING_URI"):
        Classifier.from_registry()


def test_a_registered_model_loads_in_any_folder(
    promoted: Path, run: Run, image_folder: Path, tmp_path: Path
) -> None:
    path = image_folder / "dark" / "0.png"
    uri = f"sqlite:///{promoted / 'mlflow.db'}"
    load = "from pipeline import Classifier; c = Classifier.from_registry({}); "
    show = f"print(c.predict({str(path)!r}).to_json(orient='records'))"
    answers = [
        run(folder, sys.executable, "-c", load.format(words) + show, env=env).stdout
        for folder, words, env in (
            (promoted, "", {}),
            (tmp_path, f"tracking_uri={uri!r}", {}),
            (tmp_path, "", {"MLFLOW_TRACKING_URI": uri}),
        )
    ]
    assert len({answer.splitlines()[-1] for answer in answers}) == 1
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.slow
def test_the_notebook_runs(clone: Path, run: Run) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    show = "print(answers, metrics, runs.to_string())"
    done = run(clone / "docs", sys.executable, "-c", "\n".join([*code, show]))
    assert done.returncode == 0, done.stderr
    assert "prediction" in done.stdout
    assert "digits" in done.stdout
