"""Secrets in every setting that takes an address, and no trace of them in what commands write."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import copied, mlflow_server, run_in
from postgresql import Server

from pipeline.errors import InputError, redacted
from pipeline.storage.digests import file_sha256

SECRETS = ("s3cr3t", "t0k3n", "s1gn4ture")


@pytest.mark.parametrize(
    ("text", "command_lines"),
    [
        ("postgresql+psycopg://me:s3cr3t@host/db", "postgresql+psycopg://me:***@host/db"),
        ("mysql://me:s3@cr3t@host/db", "mysql://me:***@host/db"),
        ("https://t0k3n@host/x.git", "https://***@host/x.git"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("GET /a.zip?X-Amz-Signature=s1gn4ture&part=1", "GET /a.zip?X-Amz-Signature=***&part=1"),
        ("x?X-Amz-Credential=s3cr3t%2F1&sig=s1gn4ture", "x?X-Amz-Credential=***&sig=***"),
        ("http://h/a?access_token=t0k3n 'x'", "http://h/a?access_token=*** 'x'"),
        ("postgresql://h/db?user=me&password=s3cr3t", "postgresql://h/db?user=me&password=***"),
        ("storage='postgresql://me:it's3cr3t@h/db'", "storage='postgresql://me:***@h/db'"),
        ("x = y?z:w@v, https://example.org/a?page=2", "x = y?z:w@v, https://example.org/a?page=2"),
    ],
)
def test_what_is_hidden(text: str, command_lines: str) -> None:
    assert redacted(text).startswith(command_lines)
    assert not [secret for secret in SECRETS if secret in redacted(text)]
    assert str(InputError(text)) == redacted(text)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served_archive(image_folder: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of an archive of images, with three secrets in it, and its sha256."""
    path = Path(shutil.make_archive(str(tmp_path / "images"), "zip", image_folder))
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://me:s3cr3t@127.0.0.1:{server.server_port}/{path.name}"
        yield f"{url}?token=t0k3n&X-Amz-Signature=s1gn4ture", file_sha256(path)
        server.shutdown()


def leaks(folder: Path) -> list[str]:
    """List files that contain a secret, except params.yaml, where the user wrote it."""
    actual = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.name in ("params.yaml", "dvc.lock"):
            continue
        content = path.read_bytes()
        actual += [f"{path}: {secret}" for secret in SECRETS if secret.encode() in content]
    return actual


def commands_shown() -> set[str]:
    """List the command lines of a sweep's workers, as a list of processes shows them."""
    command_lines = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "sweep" in words and process.ppid() != 1:
            command_lines.add(" ".join(words))
    return command_lines


@pytest.mark.slow
def test_no_command_leaks(
    repository: Path,
    tmp_path: Path,
    empty_store: Path,
    served_archive: tuple[str, str],
    server: Server,
) -> None:
    clone, store = copied(repository, tmp_path / "clone"), tmp_path / "team"
    url, digest = served_archive
    absent = url.replace("images.zip", "absent.zip")
    (clone / "params.yaml").write_text(
        f"""
seed: 0
threads: 2
data: {{use: archive, path: conf/data/archive.yaml, url: "{url}", sha256: {digest}}}
backbone: {{use: glyph_cnn, path: conf/backbone/glyph_cnn.yaml}}
head: {{use: logistic}}
augment: {{use: none}}
prepare: {{image_size: 32, exclude: conf/exclude.csv}}
finetune: {{cut: block3_conv2, epochs: 1}}
forward: {{engine: openvino}}
extract_features: {{batch_size: 32}}
train_head: {{epochs: 3}}
evaluate: {{split: test}}
serve: {{unknown: 0.05, coverage: 0.9}}
"""
    )
    with mlflow_server(store, empty_store) as address:
        tracking = {"MLFLOW_TRACKING_URI": address.replace("http://", "http://me:s3cr3t@")}
        python = [sys.executable, "-m", "pipeline"]
        storage = server.url.replace(":secret@", ":s3cr3t@")
        sweep = [*python, "sweep", f"sweep.storage={storage}", "sweep.n_trials=2"]
        commands = [
            ["dvc", "repro"],
            [*python, "promote", "promote.max_calibration_error=null", "promote.min_recall=null"],
            [*python, "doctor"],
            [*python, "compare"],
            [*python, "report"],
            [*python, "prepare", "--cfg", "job"],
            [*python, "predict", "outputs/report.html"],
            [*python, "prepare", "data.sha256=0"],
            [*python, "prepare", f"data.url={absent}", "data.sha256=1"],
            [*python, "prepare", f"tracking.uri={server.url.replace('secret@', 's3cr3t@x')}"],
            [*python, "sweep", "sweep.storage=nosuch://me:s3cr3t@host/db"],
        ]
        for command in commands:
            done = run_in(clone, *command, env=tracking)
            output = done.stdout + done.stderr
            assert not [secret for secret in SECRETS if secret in output], (command, output)
            assert "Traceback" not in output, (command, output)
            assert done.returncode == 0 or command not in commands[:5], output
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        command_lines: set[str] = set()
        process = subprocess.Popen(
            sweep,
            cwd=clone,
            env={**os.environ, **tracking, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while process.poll() is None:
            command_lines |= commands_shown() - {" ".join(sweep)}
            time.sleep(0.3)
        assert process.stdout is not None
        output = process.stdout.read()
        assert process.returncode == 0, output
        assert not [secret for secret in SECRETS if secret in output + "".join(command_lines)]
        assert any("oc.env" in words for words in command_lines), "the workers were seen"
    assert not leaks(clone / "outputs")
    assert not leaks(clone / "sweeps")
    assert not leaks(clone / ".work")
    assert not leaks(store)
