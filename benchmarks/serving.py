"""Load on the HTTP server: many clients at once, valid and invalid rows, every answer checked.

python -m benchmarks.serving [ROUNDS] [SECONDS] [CLIENTS] [OTHER ...]

Each round puts load on every server in turn, stops it, and runs the bare model on the same images:
the server over multipart, with images from the test split alone (clean) and with files that no
camera made (mixed), and every OTHER: a checkout of another version, whose requests are those of
MLflow's protocol, or `litserve`, a server of the same model (benchmarks/litserve_server.py, whose
packages are in benchmarks/litserve.txt).
"""

import base64
import csv
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import side_by_side, workshop
from pipeline import config
from pipeline.intake import sources
from pipeline.serving.classifier import Classifier

PRESETS = {"": "digits, glyph_cnn", "hymenoptera_mobilenet_v2": "ants and bees, MobileNetV2 0.35"}
BODIES = 400
MOST_ROWS = 8
BARE = 256
BAD_SHARE = 0.25
OWN = ("clean", "mixed")
BOUNDARY = "a-line-that-no-image-contains"
MULTIPART, JSON = f"multipart/form-data; boundary={BOUNDARY}", "application/json"

Row = tuple[bytes, dict[str, Any]]
Body = tuple[bytes, list[dict[str, Any]]]


@dataclass
class Load:
    """The clients' measurements."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    rows: int = 0
    refused: list[str] = field(default_factory=list)
    wrong: int = 0
    memory_mb: list[float] = field(default_factory=list)


def main(rounds: int, seconds: int, clients: int, others: list[str]) -> None:
    columns: dict[str, dict[str, str]] = {}
    for preset, name in PRESETS.items():
        with workshop.copy(preset) as folder, chdir(folder):
            workshop.run(folder, "dvc", "repro")
            limits = ["promote.min_recall=null", "promote.max_calibration_error=null"]
            workshop.run(folder, sys.executable, "-m", "pipeline", "promote", *limits)
            good, bad = test_images(), oddities(folder)
            actual: dict[str, list[side_by_side.Figures]] = {}
            for _ in range(rounds):
                for which in (*OWN, *others):
                    multipart = which in (*OWN, "litserve")
                    made = bodies(good, [] if which == "clean" else bad, multipart)
                    with server(folder, which) as (port, process):
                        path = "/predict" if multipart else "/invocations"
                        kind = MULTIPART if multipart else JSON
                        loaded = load((port, path, kind), process, made, seconds, clients)
                    actual.setdefault(which, []).append(figures(loaded))
                    print(f"{preset}, {which}: {actual[which][-1]}", file=sys.stderr)
                alone = bare(folder, good)
                for which in actual:
                    actual[which][-1] |= alone
            for which, measured in actual.items():
                columns[f"{name}: {Path(which).name}"] = lines(measured)
    names = list(columns)
    table = [
        f"`python -m benchmarks.serving {rounds} {seconds} {clients}`: {clients} clients for",
        f"{seconds} s, each with its next request as soon as the last is answered; 1 to",
        f"{MOST_ROWS} rows each, from the test split (clean) or a quarter from oddities.tar",
        "(mixed and others). Clients and server share the machine. Every answer is compared with",
        "predictions.csv and `predict`.",
        f"Rounds: {rounds}, the bare model in turn; median (range).",
        "",
        f"| | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
        *(
            f"| {key} | {' | '.join(columns[name][key] for name in names)} |"
            for key in columns[names[0]]
        ),
    ]
    side_by_side.write("Serving", "\n".join(table))


def test_images() -> list[Row]:
    """Files of the test split, and what evaluate said of them."""
    with Path("outputs/evaluate/predictions.csv").open() as file:
        message = {line.pop("path"): line for line in csv.DictReader(file)}
    rows = []
    for image in sources.images(config.compose().data):
        if line := message.get(image.path):
            begin = "probability_"
            columns = [name for name in line if name.startswith(begin)]
            values = {name.removeprefix(begin): float(np.float32(line[name])) for name in columns}
            rows.append((image.read(), {"probabilities": values, "error": None}))
    return rows


def oddities(folder: Path) -> list[Row]:
    """Files that no camera made, and what predict says of them."""
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(workshop.SHARED / "data/oddities.tar") as archive:
            archive.extractall(scratch, filter="data")
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "predict", "--json", scratch],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        message = [json.loads(line) for line in done.stdout.splitlines()]
        return [
            (
                Path(item["path"]).read_bytes(),
                {"probabilities": item.get("probabilities"), "error": item.get("error")},
            )
            for item in message
        ]


def bodies(good: list[Row], bad: list[Row], multipart: bool) -> list[Body]:
    """Requests, and the answers they should get; every oddity is in some of them."""
    rng = random.Random(0)
    left = list(bad)
    made = []
    for _ in range(BODIES):
        chosen = []
        for _ in range(rng.randint(1, MOST_ROWS)):
            if bad and rng.random() < BAD_SHARE:
                left = left or list(bad)
                chosen.append(left.pop())
            else:
                chosen.append(rng.choice(good))
        contents = [content for content, _ in chosen]
        body = as_multipart(contents) if multipart else as_json(contents)
        made.append((body, [answer for _, answer in chosen]))
    return made


def as_json(contents: list[bytes]) -> bytes:
    records = [{"image": base64.b64encode(content).decode()} for content in contents]
    return json.dumps({"dataframe_records": records}).encode()


def as_multipart(contents: list[bytes]) -> bytes:
    head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"'
    parts = [f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + item + b"\r\n" for item in contents]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def server(folder: Path, which: str) -> Iterator[tuple[int, psutil.Process]]:
    """The champion, served as `make serve` does, here or in another checkout; or by LitServe."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = folder if which in (*OWN, "litserve") else Path(which)
    # An older version does not know `auto`; -P: the code of PYTHONPATH, not that of the folder.
    engine = [] if which in OWN else ["forward.engine=openvino"]
    command = ["-P", "-m", "pipeline", "serve", f"serve.port={port}", *engine]
    if which == "litserve":
        command = ["-P", "-m", "benchmarks.litserve_server", str(port)]
    inherited = os.environ.get("PYTHONPATH", "")
    with (folder / "serve.log").open("w") as log:
        started = subprocess.Popen(
            [sys.executable, *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(code.resolve()), inherited])},
        )
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            break
        except OSError as error:
            if started.poll() is not None:
                text = (folder / "serve.log").read_text()[-2000:]
                raise SystemExit(f"{which} does not serve:\n{text}") from error
            time.sleep(0.5)
    time.sleep(2)
    yield port, psutil.Process(started.pid)
    started.terminate()
    started.wait()


def load(
    target: tuple[int, str, str],
    process: psutil.Process,
    made: list[Body],
    seconds: int,
    clients: int,
) -> Load:
    """Send requests for some seconds.

    Args:
        target: Port, path and Content-Type.
        process: The server.
        made: Requests, and the answers they should get.
        seconds: How long.
        clients: How many at once.
    """
    actual = Load()
    lock = threading.Lock()
    port, path, kind = target
    began = time.perf_counter()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        rng = random.Random(number)
        while time.perf_counter() - began < seconds:
            body, expected = rng.choice(made)
            requested = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": kind})
            done = connection.getresponse()
            text = done.read()
            latency = time.perf_counter() - requested
            with lock:
                actual.latencies.append(latency)
                if done.status != 200:
                    actual.refused.append(f"{done.status} {text[:200]!r}")
                    continue
                answers = json.loads(text)["predictions"]
                message = [
                    {key: item[key] for key in ("probabilities", "error")} for item in answers
                ]
                actual.rows += len(message)
                actual.wrong += message != expected

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        family = [process, *process.children(recursive=True)]
        actual.memory_mb.append(sum(item.memory_info().rss for item in family) / 1e6)
        time.sleep(1)
    actual.seconds = time.perf_counter() - began
    return actual


def figures(actual: Load) -> side_by_side.Figures:
    """Return the clients' measurements as numbers."""
    p50, p95, p99 = np.percentile(actual.latencies, [50, 95, 99])
    begun = len(actual.memory_mb) // 6  # every kind of row has been seen by then
    for line in actual.refused[:5]:
        print(line, file=sys.stderr)
    return {
        "requests": len(actual.latencies),
        "refused": len(actual.refused),
        "wrong": actual.wrong,
        "rows_per_s": actual.rows / actual.seconds,
        "p50_ms": 1000 * float(p50),
        "p95_ms": 1000 * float(p95),
        "p99_ms": 1000 * float(p99),
        "slowest_ms": 1000 * max(actual.latencies),
        "begun_mb": actual.memory_mb[begun],
        "half_mb": actual.memory_mb[len(actual.memory_mb) // 2],
        "end_mb": actual.memory_mb[-1],
    }


def bare(folder: Path, good: list[Row]) -> side_by_side.Figures:
    """Images per second of the Keras model alone: decoded already, no HTTP, no base64."""
    classifier = Classifier(folder / "outputs/finetune/model.keras")
    images = np.stack([classifier.decode(content) for content, _ in good[:BARE]])
    floats = images.astype(np.float32)
    model = classifier.model
    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "decoding": (len(images), lambda: [classifier.decode(item) for item, _ in good[:BARE]]),
        "predict": (len(images), lambda: model.predict(floats, 32, verbose=0)),
        "one_by_one": (32, lambda: [model(item[None], training=False) for item in floats[:32]]),
        "forward": (len(images), lambda: classifier.probabilities(images)),
    }
    rates = {}
    for name, (count, way) in ways.items():
        way()
        began = time.perf_counter()
        way()
        rates[name] = count / (time.perf_counter() - began)
    return rates


def lines(rounds: list[side_by_side.Figures]) -> dict[str, str]:
    """Row of the table -> value."""

    def of(key: str, form: str = ".0f") -> str:
        return side_by_side.middle([item[key] for item in rounds], form)

    def all_of(key: str) -> str:
        return f"{sum(item[key] for item in rounds):.0f}"

    def share(of_which: str) -> str:
        values = [100 * item["rows_per_s"] / item[of_which] for item in rounds]
        return f"{side_by_side.middle(values, '.0f')} %"

    return {
        "requests, all rounds": all_of("requests"),
        "not answered with 200": all_of("refused"),
        "with a wrong answer": all_of("wrong"),
        "rows per second": of("rows_per_s"),
        "latency p50, ms": of("p50_ms"),
        "latency p95, ms": of("p95_ms"),
        "latency p99, ms": of("p99_ms"),
        "slowest, ms": of("slowest_ms"),
        "memory after a sixth of the time, MB": of("begun_mb"),
        "memory after half of it, MB": of("half_mb"),
        "memory at the end, MB": of("end_mb"),
        "bare: decoding, one thread, images/s": of("decoding"),
        "bare: model.predict, batches of 32, images/s": of("predict"),
        "bare: model, one by one, images/s": of("one_by_one"),
        "bare: the pipeline's forward pass, images/s": of("forward"),
        "rows per second relative to model.predict": share("predict"),
        "rows per second relative to the pipeline's forward pass": share("forward"),
    }


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:4]]
    main(*numbers, *(3, 60, 32)[len(numbers) :], others=sys.argv[4:])
