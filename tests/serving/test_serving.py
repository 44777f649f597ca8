"""The registered model: as a pyfunc, over HTTP, and in the layout of its Docker image."""

import csv
import io
import json
import socket
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from conftest import Run, run_in
from PIL import Image
from served import CONTENT, MAX_BYTES, ask, encoded

from pipeline.serving.pyfunc import Service

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("served")]


def test_every_test_image_over_http_is_as_evaluate_computed_it(
    url: str, expected: dict[str, dict[str, float]]
) -> None:
    names = list(expected)
    # Requests of many sizes, from several clients at once.
    parts = [names[:1], names[1:8], names[8:300], names[300:301], names[301:]]
    with ThreadPoolExecutor(5) as clients:
        actual = clients.map(lambda part: ask(url, [encoded(CONTENT[n]) for n in part]), parts)
        rows = [row for part in actual for row in part]
    assert len(rows) == len(names) > 1000
    for name, row in zip(names, rows, strict=True):
        assert row["probabilities"] == expected[name], name
        assert row["prediction"] == max(expected[name], key=lambda item: expected[name][item])
        assert row["probability"] == expected[name][row["prediction"]]
        assert row["error"] is None


def test_predict_with_the_champion_is_the_same(
    promoted: Path, run: Run, expected: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    names = list(expected)[:40]
    for place, name in enumerate(names):
        (tmp_path / f"{place:02}.png").write_bytes(CONTENT[name])
    words = ("predict", "--model", "models:/classifier@champion", "--csv", str(tmp_path))
    done = run(promoted, sys.executable, "-m", "pipeline", *words)
    assert done.returncode == 0, done.stderr
    for name, row in zip(names, csv.DictReader(io.StringIO(done.stdout)), strict=True):
        actual = {k: float(np.float32(row[f"probability_{k}"])) for k in expected[name]}
        assert actual == expected[name]


def test_a_bad_row_tells_why_and_costs_nothing_else(
    url: str, expected: dict[str, dict[str, float]]
) -> None:
    name = next(iter(expected))
    secret = Path(__file__)
    bad = {
        "not base64": "!!",
        "not an image: no decoder": encoded(b"no image"),
        "empty file": "",
        "not an image: a row must have": None,
        "not an image: a row must have the base64": {"path": str(secret)},
        "too large: 26.0 MB, the limit is 25": encoded(bytes(26_000_000)),
        "not base64: ": str(secret),
        "truncated": encoded(photograph()[:1500]),
    }
    rows = ask(url, [encoded(CONTENT[name]), *bad.values(), encoded(CONTENT[name])])
    for row in (rows[0], rows[-1]):
        assert row["probabilities"] == expected[name]
    for reason, row in zip(bad, rows[1:-1], strict=True):
        assert row["error"].startswith(reason), row
        assert row["prediction"] is row["probability"] is row["probabilities"] is None


def photograph() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def test_other_forms_of_mlflow(url: str, expected: dict[str, dict[str, float]]) -> None:
    names = list(expected)[:3]
    texts = [encoded(CONTENT[name]) for name in names]
    pixels = [np.asarray(Image.open(io.BytesIO(CONTENT[name]))).tolist() for name in names]
    table = io.BytesIO()
    pd.DataFrame({"image": [CONTENT[name] for name in names]}).to_parquet(table)
    bodies: list[dict[str, Any]] = [
        {"json": {"dataframe_split": {"columns": ["image"], "data": [[item] for item in texts]}}},
        {"json": {"instances": [{"image": item} for item in texts]}},
        {"json": {"inputs": {"image": texts}}},
        {"json": {"dataframe_records": [{"image": f"data:image/png;base64,{t}"} for t in texts]}},
        {"json": {"dataframe_records": [{"image": item} for item in pixels]}},
        {"data": table.getvalue(), "headers": {"Content-Type": "application/vnd.apache.parquet"}},
    ]
    for body in bodies:
        done = requests.post(url, timeout=60, **body)
        assert done.status_code == 200, done.text
        actual = [row["probabilities"] for row in done.json()["predictions"]]
        assert actual == [expected[name] for name in names], str(body)[:100]


def test_every_oddity_is_answered_as_predict_answers(
    url: str, repository: Path, run: Run, shared: Path, tmp_path: Path
) -> None:
    with tarfile.open(shared / "data/oddities.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    files = sorted(item for item in tmp_path.rglob("*") if item.is_file())
    done = run(repository, sys.executable, "-m", "pipeline", "predict", "--json", *map(str, files))
    message = [json.loads(line) for line in done.stdout.splitlines()]
    requested = [file for file in files if file.stat().st_size <= MAX_BYTES]
    assert len(requested) > 80
    rows = []
    for start in range(0, len(requested), 20):
        rows += ask(url, [encoded(item.read_bytes()) for item in requested[start : start + 20]])
    by_path = {item["path"]: item for item in message}
    for file, row in zip(requested, rows, strict=True):
        item = by_path[str(file)]
        assert row["error"] == item.get("error"), file
        assert row["probabilities"] == item.get("probabilities"), file


def test_in_process_a_row_may_be_bytes_a_path_or_an_array(
    service: Service, expected: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    name = next(iter(expected))
    (tmp_path / "image").write_bytes(CONTENT[name])
    pixels = np.asarray(Image.open(io.BytesIO(CONTENT[name])))
    good = [
        *(CONTENT[name], bytearray(CONTENT[name]), tmp_path / "image", pixels),
        *(np.stack([pixels] * 3, axis=-1), pixels.astype(np.float32), pixels.tolist()),
    ]
    actual = service.predict(pd.DataFrame({"image": pd.Series(good, dtype=object)}))
    assert list(actual["probabilities"]) == [expected[name]] * len(good)
    bad: dict[Any, str] = {
        "unreadable: No such file or directory": tmp_path / "missing",
        "not an image: a row must have": np.full((4, 4), 300),
        "not an image: a row must have the base64 of": np.full((4, 4), 0.5),
        "not an image: a row must": [[1, 2], [3]],
        "too large: 2.2": bytes(2_200_000),
    }
    actual = service.predict(pd.DataFrame({"image": pd.Series(list(bad.values()), dtype=object)}))
    for reason, error in zip(bad, actual["error"], strict=True):
        assert error.startswith(reason)


def test_the_docker_context_holds_all_it_needs(
    promoted: Path, run: Run, expected: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    context = tmp_path / "context"
    words = ("models", "generate-dockerfile", "-m", "models:/classifier@champion", "-d")
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{promoted / 'mlflow.db'}"}
    done = run(promoted, "mlflow", *words, str(context), "--env-manager", "local", env=store)
    assert done.returncode == 0, done.stderr
    assert "COPY model_dir /opt/ml/model" in (context / "Dockerfile").read_text()
    needed = (context / "model_dir/requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in needed} >= {"tensorflow", "keras", "pillow"}
    assert all("==" in line for line in needed)
    name = next(iter(expected))
    (tmp_path / "rows.json").write_text(
        json.dumps({"dataframe_records": [{"image": encoded(CONTENT[name])}]})
    )
    # Elsewhere, without the project: its code must come from the image.
    script = (
        "import json, sys, mlflow, pandas as pd\n"
        f"model = mlflow.pyfunc.load_model({str(context / 'model_dir')!r})\n"
        "import base64, io, pathlib, numpy as np, PIL.Image\n"
        "(row,) = json.load(open('rows.json'))['dataframe_records']\n"
        "content = base64.b64decode(row['image'])\n"
        "pathlib.Path('image').write_bytes(content)\n"
        "pixels = np.asarray(PIL.Image.open(io.BytesIO(content)))\n"
        "rows = [row['image'], content, pathlib.Path('image'), pixels]\n"
        "found = model.predict(pd.DataFrame({'image': pd.Series(rows, dtype=object)}))\n"
        "code = [m for name, m in sys.modules.items() if name.endswith('.data.image_file')]\n"
        "print(json.dumps([code[0].__file__, list(found['probabilities'])]))\n"
    )
    done = run(tmp_path, sys.executable, "-c", script, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    source, probabilities = json.loads(done.stdout.splitlines()[-1])
    assert Path(source).is_relative_to(context)
    assert probabilities == [expected[name]] * 4


APPLICATION = """
import json, sys
import mlflow, numpy as np, pandas as pd
import pipeline.etl
np.random.seed(7)
drawn = np.random.RandomState(7).random()
rows = pd.DataFrame({"image": json.load(open("rows.json"))})
models = [mlflow.pyfunc.load_model(uri) for uri in sys.argv[1:]]
answers = [model.predict(rows) for model in models]
from pipeline import etl
ours = {name.split(".")[0] for name in sys.modules if name.startswith("classifier_")}
print(json.dumps({
    "random": np.random.random() == drawn,
    "foreign": [name for name in sys.modules if name.split(".")[0] == "pipeline"],
    "packages": sorted(ours),
    "labels": [list(one["prediction"]) for one in answers],
    "probabilities": [list(one["probabilities"]) for one in answers],
}))
"""


def test_an_application_with_a_pipeline_of_its_own(
    promoted: Path, run: Run, expected: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    """Two versions of the model, with other code each, in one process of it."""
    project = tmp_path / "project"
    run_in(promoted, "cp", "-r", str(promoted), str(project))
    source = project / "pipeline" / "data" / "tasks" / "classification.py"
    text = source.read_text()
    assert text.count('"prediction": decided,') == 1
    source.write_text(text.replace('"prediction": decided,', '"prediction": f"second {decided}",'))
    words = (sys.executable, "-m", "pipeline", "promote", "promote.margin=1")
    done = run_in(project, *words, forked=False, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    application = tmp_path / "application"
    (application / "pipeline").mkdir(parents=True)
    (application / "pipeline" / "__init__.py").write_text("")
    (application / "pipeline" / "etl.py").write_text("")
    names = list(expected)[:9]
    (application / "rows.json").write_text(json.dumps([encoded(CONTENT[name]) for name in names]))
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}", "PYTHONPATH": "."}
    uris = ("models:/classifier/1", "models:/classifier/2")
    done = run(application, sys.executable, "-c", APPLICATION, *uris, env=store)
    assert done.returncode == 0, done.stderr
    actual = json.loads(done.stdout.splitlines()[-1])
    assert sorted(actual["foreign"]) == ["pipeline", "pipeline.etl"]
    assert len(actual["packages"]) == 2
    assert actual["probabilities"] == [[expected[name] for name in names]] * 2
    first, second = actual["labels"]
    assert second == [f"second {label}" for label in first]
    assert actual["random"], "the application's own random numbers go on"


def test_what_cannot_be_served(repository: Path, run: Run) -> None:
    def serve(*words: str) -> str:
        done = run(repository, sys.executable, "-m", "pipeline", "serve", *words)
        assert done.returncode == 1
        return str(done.stderr)

    message = serve()
    assert message.startswith(
        "error: no model models:/classifier@champion in the registry of sqlite:///"
    )
    assert "serve.workers must be at least 1, got 0" in serve("serve.workers=0")
    assert "serve.token must not be empty: set it, or null for no token" in serve("serve.token=''")
    assert "no model at nowhere.keras: run dvc repro first" in serve("serve.model=nowhere.keras")
    message = serve("serve.port=99999")
    assert "serve.port must be at least 1 and at most 65535, got 99999" in message
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"serve.port={port} is not available on 127.0.0.1 (Address already in use)" in serve(
            f"serve.port={port}"
        )
        done = run(repository, sys.executable, "-m", "pipeline", "ui", f"tracking.port={port}")
        assert f"error: tracking.port={port} is not available on 127.0.0.1" in (done.stderr)
