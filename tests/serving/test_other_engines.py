"""With each engine, every way to use a model gives what evaluate computed."""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Run, listening
from pyarrow import parquet
from served import CONTENT, MAX_BYTES, ask, encoded

from pipeline.data import predictions
from pipeline.data.predictions import cell
from pipeline.data.tasks import classification
from pipeline.networks import model_file
from pipeline.serving.classifier import Classifier
from pipeline.serving.pyfunc import Service

pytestmark = pytest.mark.slow

COVERAGE = 0.99
TRUST = ("known", "typicality", "labels")


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_every_test_image_is_as_evaluate_computed_it(
    engine: str, clone: Path, run: Run, tmp_path: Path
) -> None:
    params = clone / "params.yaml"
    settings = yaml.safe_load(params.read_text())
    settings["forward"]["engine"] = engine
    settings["prepare"] |= {"train_per_class": 40, "calibration_fraction": 0.3}
    settings["finetune"]["epochs"] = 3
    settings["serve"]["coverage"] = COVERAGE
    params.write_text(yaml.safe_dump(settings, sort_keys=False))
    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "does not run" not in done.stdout
    path = clone / "outputs/finetune/model.keras"
    chosen = model_file.read_card(path).engine
    assert (chosen["engine"] if chosen else "keras") == engine
    expected = predictions.read(clone / "outputs/evaluate" / predictions.FILE)
    assert len(expected.paths) > 900
    relied = parquet.read_table(clone / "outputs/evaluate" / predictions.FILE).to_pylist()
    assert {item["known"] for item in relied} == {True, False}
    assert {len(item["labels"]) for item in relied} > {1}

    service = Service(Classifier(path, coverage=COVERAGE), MAX_BYTES)
    contents = [CONTENT[name] for name in expected.paths]
    for start, end in ((0, 1), (1, 8), (8, 700), (700, len(contents))):
        answers = service.predict(pd.DataFrame({"image": contents[start:end]}))
        actual = [list(row.values()) for row in answers["probabilities"]]
        assert (np.array(actual, np.float32) == expected.probabilities[start:end]).all()
        trusted = answers[["known", "typicality", "labels"]].to_dict("records")
        assert trusted == [{name: item[name] for name in TRUST} for item in relied[start:end]]

    folder = tmp_path / "all"
    folder.mkdir()
    for place, content in enumerate(contents):
        (folder / f"{place:04}.png").write_bytes(content)
    done = run(clone, sys.executable, "-m", "pipeline", "predict", "--csv", str(folder))
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    columns = classification.TASK.columns(expected.classes)
    message = [[float(row[name]) for name in columns] for row in rows]
    assert (np.array(message, np.float32) == expected.probabilities).all()
    for row, item in zip(rows, relied, strict=True):
        assert [row[name] for name in TRUST] == [cell(item[name]) for name in TRUST]

    done = run(clone, sys.executable, "-m", "pipeline", "promote")
    assert done.returncode == 0, done.stderr
    with listening(clone, "serve") as (address, _):
        answered = ask(f"{address}/invocations", [encoded(content) for content in contents])
    actual = [[item["probabilities"][name] for name in expected.classes] for item in answered]
    assert (np.array(actual, np.float32) == expected.probabilities).all()
    assert [{name: item[name] for name in TRUST} for item in answered] == [
        {name: item[name] for name in TRUST} for item in relied
    ]
