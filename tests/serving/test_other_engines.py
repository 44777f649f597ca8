"""With each engine, whoever asks the model gets what evaluate computed."""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Run
from served import CONTENT, MAX_BYTES

from pipeline.data import predictions
from pipeline.networks import model_file
from pipeline.serving.classifier import Classifier
from pipeline.serving.pyfunc import Service


@pytest.mark.parametrize("engine", ["keras", "onnxruntime"])
def test_every_test_picture_is_as_evaluate_computed_it(
    engine: str, clone: Path, run: Run, tmp_path: Path
) -> None:
    for stage in ("finetune", "evaluate"):
        words = (f"forward.engine={engine}", "finetune.epochs=3", "tracking.enabled=false")
        done = run(clone, sys.executable, "-m", "pipeline", stage, *words)
        assert done.returncode == 0, done.stderr
        assert "does not run" not in done.stdout
    path = clone / "outputs/finetune/model.keras"
    chosen = model_file.read_card(path).engine
    assert (chosen["engine"] if chosen else "keras") == engine
    expected = predictions.read(clone / "outputs/evaluate" / predictions.FILE)
    assert len(expected.paths) > 1000

    service = Service(Classifier(path), MAX_BYTES)
    contents = [CONTENT[name] for name in expected.paths]
    for start, end in ((0, 1), (1, 8), (8, 700), (700, len(contents))):
        answers = service.predict(pd.DataFrame({"picture": contents[start:end]}))
        found = [list(row.values()) for row in answers["probabilities"]]
        assert (np.array(found, np.float32) == expected.probabilities[start:end]).all()

    folder = tmp_path / "some"
    folder.mkdir()
    for place, content in enumerate(contents[:30]):
        (folder / f"{place:02}.png").write_bytes(content)
    done = run(clone, sys.executable, "-m", "pipeline", "predict", "--csv", str(folder))
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    told = [[float(row[name]) for name in expected.classes] for row in rows]
    assert (np.array(told, np.float32) == expected.probabilities[:30]).all()
