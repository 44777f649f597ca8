"""With each engine, whoever asks the model gets what evaluate computed."""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Run
from pyarrow import parquet
from served import CONTENT, MAX_BYTES

from pipeline.data import predictions
from pipeline.data.predictions import TRUST, told_of
from pipeline.networks import model_file
from pipeline.serving.classifier import Classifier
from pipeline.serving.pyfunc import Service
from pipeline.storage.outputs import STAGES

COVERAGE = "serve.coverage=0.99"


@pytest.mark.parametrize("engine", ["keras", "onnxruntime", "openvino"])
def test_every_test_picture_is_as_evaluate_computed_it(
    engine: str, clone: Path, run: Run, tmp_path: Path
) -> None:
    with_sets = ("prepare.calibration_fraction=0.3", "prepare.train_per_class=40")
    for stage in STAGES:
        words = (f"forward.engine={engine}", "finetune.epochs=3", "tracking.enabled=false")
        words += with_sets if stage == "prepare" else ()
        words += (COVERAGE,) if stage == "evaluate" else ()
        done = run(clone, sys.executable, "-m", "pipeline", stage, *words)
        assert done.returncode == 0, done.stderr
        assert "does not run" not in done.stdout
    path = clone / "outputs/finetune/model.keras"
    chosen = model_file.read_card(path).engine
    assert (chosen["engine"] if chosen else "keras") == engine
    expected = predictions.read(clone / "outputs/evaluate" / predictions.FILE)
    assert len(expected.paths) > 900
    relied = parquet.read_table(clone / "outputs/evaluate" / predictions.FILE).to_pylist()
    assert {one["known"] for one in relied} == {True, False}
    assert {len(one["labels"]) for one in relied} > {1}

    service = Service(Classifier(path, coverage=0.99), MAX_BYTES)
    contents = [CONTENT[name] for name in expected.paths]
    for start, end in ((0, 1), (1, 8), (8, 700), (700, len(contents))):
        answers = service.predict(pd.DataFrame({"picture": contents[start:end]}))
        found = [list(row.values()) for row in answers["probabilities"]]
        assert (np.array(found, np.float32) == expected.probabilities[start:end]).all()
        trusted = answers[["known", "typicality", "labels"]].to_dict("records")
        assert trusted == [{name: one[name] for name in TRUST} for one in relied[start:end]]

    folder = tmp_path / "some"
    folder.mkdir()
    for place, content in enumerate(contents[:30]):
        (folder / f"{place:02}.png").write_bytes(content)
    done = run(clone, sys.executable, "-m", "pipeline", "predict", "--csv", str(folder), COVERAGE)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    told = [[float(row[name]) for name in expected.classes] for row in rows]
    assert (np.array(told, np.float32) == expected.probabilities[:30]).all()
    for row, one in zip(rows, relied, strict=False):
        assert [row[name] for name in TRUST] == told_of(*(one[name] for name in TRUST))
