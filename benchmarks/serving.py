"""Load on the HTTP server: many clients at once, valid and invalid rows, every answer checked.

python -m benchmarks.serving [ROUNDS] [SECONDS] [CLIENTS]

Each round puts load on the server, stops it, and runs the bare model on the same images.
"""

import base64
import csv
import json
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
import requests

from benchmarks import side_by_side, workshop
from pipeline import config
from pipeline.intake import sources
from pipeline.serving.classifier import Classifier

PRESETS = {
    "": "digits, glyph_cnn",
    "hymenoptera_mobilenet_v2": "ants and bees, MobileNetV2 0.35",
}
BODIES = 400
MOST_ROWS = 8
BARE = 256
BAD_SHARE = 0.25

Row = tuple[bytes, dict[str, Any]]


@dataclass
class Load:
    """The clients' measurements."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    rows: int = 0
    refused: list[str] = field(default_factory=list)
    wrong: int = 0
    memory_mb: list[float] = field(default_factory=list)


def main(rounds: int, seconds: int, clients: int) -> None:
    columns = {}
    for preset, name in PRESETS.items():
        with workshop.copy(preset) as folder, chdir(folder):
            workshop.run(folder, "dvc", "repro")
            limits = ["promote.min_recall=null", "promote.max_calibration_error=null"]
            workshop.run(folder, sys.executable, "-m", "pipeline", "promote", *limits)
            good, bad = test_images(), oddities(folder)
            actual = []
            for number in range(rounds):
                with server(folder) as (url, process):
                    loaded = load(url, process, bodies(good, bad), seconds, clients)
                actual.append(figures(loaded) | bare(folder, good))
                print(f"{preset}, round {number + 1} of {rounds}: {actual[-1]}", file=sys.stderr)
            columns[name] = lines(actual)
    names = list(columns)
    table = [
        f"`python -m benchmarks.serving {rounds} {seconds} {clients}`: {clients} clients for",
        f"{seconds} s, each with its next request as soon as the last is answered; 1 to",
        f"{MOST_ROWS} rows each, a quarter of them from oddities.tar, the others from the test",
        "split. Clients and server share the machine. Every answer is compared with",
        f"predictions.csv and `predict`. Rounds: {rounds}, the bare model in turn; median (range).",
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


def bodies(good: list[Row], bad: list[Row]) -> list[tuple[bytes, list[dict[str, Any]]]]:
    """Requests, and the answers they should get; every oddity is in some of them."""
    rng = random.Random(0)
    left = list(bad)
    made = []
    for _ in range(BODIES):
        chosen = []
        for _ in range(rng.randint(1, MOST_ROWS)):
            if rng.random() < BAD_SHARE:
                left = left or list(bad)
                chosen.append(left.pop())
            else:
                chosen.append(rng.choice(good))
        records = [{"image": base64.b64encode(content).decode()} for content, _ in chosen]
        body = json.dumps({"dataframe_records": records}).encode()
        made.append((body, [answer for _, answer in chosen]))
    return made


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The champion, served as `make serve` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "serve.log").open("w") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "serve", f"serve.port={port}"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    while True:
        try:
            requests.get(f"{address}/ping", timeout=5)
            break
        except requests.ConnectionError:
            time.sleep(0.5)
    yield f"{address}/invocations", psutil.Process(started.pid)
    started.terminate()
    started.wait()


def load(
    url: str,
    process: psutil.Process,
    made: list[tuple[bytes, list[dict[str, Any]]]],
    seconds: int,
    clients: int,
) -> Load:
    """Ask for some seconds."""
    actual = Load()
    lock = threading.Lock()
    began = time.perf_counter()

    def client(number: int) -> None:
        session = requests.Session()
        rng = random.Random(number)
        while time.perf_counter() - began < seconds:
            body, expected = rng.choice(made)
            requested = time.perf_counter()
            done = session.post(url, data=body, headers={"Content-Type": "application/json"})
            latency = time.perf_counter() - requested
            with lock:
                actual.latencies.append(latency)
                if done.status_code != 200:
                    actual.refused.append(f"{done.status_code} {done.text[:200]}")
                    continue
                answers = done.json()["predictions"]
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
    given = [int(word) for word in sys.argv[1:]]
    main(*given, *(3, 60, 32)[len(given) :])
