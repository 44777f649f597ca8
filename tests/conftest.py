"""Shared fixtures: no network, a small real dataset, a finished pipeline."""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from filelock import FileLock
from PIL import Image

PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared"

# Children of the tests refuse the network too: see tests/offline/sitecustomize.py.
os.environ["PYTHONPATH"] = os.pathsep.join([str(PROJECT / "tests" / "offline"), str(PROJECT)])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.pop("MLFLOW_TRACKING_URI", None)
for name in ("DVC_ROOT", "DVC_EXP_NAME"):
    os.environ.pop(name, None)
sys.path.insert(0, str(PROJECT / "tests" / "offline"))

import offline  # noqa: E402

offline.refuse_network()

from pipeline.tracking import store  # noqa: E402

pytest_plugins = ["postgresql", "served"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def _tensorflow() -> None:
    from pipeline.networks import runtime

    runtime.configure(0, 2)


@pytest.fixture
def shared() -> Path:
    """Real weights and images, which only some machines have."""
    if not SHARED.is_dir():
        pytest.skip("needs real weights and images in ../shared, which is absent")
    return SHARED


def pytest_configure(config: pytest.Config) -> None:
    """One fork server serves all workers of a parallel run."""
    if getattr(config.option, "numprocesses", None):
        os.environ.update(fork_server())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a browser or a server are slow."""
    for item in items:
        if {"browser", "server", "url", "promoted"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@cache
def fork_server() -> dict[str, str]:
    """The environment in which `python -m pipeline` and `dvc` run in forks: see forked/."""
    if "FORK_SERVER" in os.environ:
        return {name: os.environ[name] for name in ("FORK_SERVER", "FORK_PROGRAMS")}
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    client = (PROJECT / "tests" / "forked" / "client.py").read_text()
    for name in ("python", "dvc"):
        (folder / name).write_text(f"#!{sys.executable} -IS\n{client}")
        (folder / name).chmod(0o755)
    address = folder / "socket"
    server = subprocess.Popen([sys.executable, PROJECT / "tests/forked/server.py", address])

    def stop() -> None:
        server.kill()
        server.wait()
        shutil.rmtree(folder)

    atexit.register(stop)
    return {"FORK_SERVER": str(address), "FORK_PROGRAMS": str(Path(sys.executable).parent)}


def run_in(
    folder: Path,
    *command: str,
    env: dict[str, str] | None = None,
    timeout: int = 600,
    forked: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command of the virtual environment in a folder.

    Args:
        folder: Where.
        command: Its words.
        env: Variables beside those of the tests.
        timeout: In seconds.
        forked: Whether `python -m pipeline` and `dvc`, and what they start, may run in forks,
            on the code of this project: not where a test changes the code of `folder`.
    """
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    own = {}
    if forked and command[0] in (sys.executable, "dvc"):
        own = fork_server()
        forks = Path(own["FORK_SERVER"]).parent
        path.insert(0, str(forks))
        command = (str(forks / ("dvc" if command[0] == "dvc" else "python")), *command[1:])
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **own, "PATH": os.pathsep.join(path), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def run() -> Run:
    return run_in


def copy_project(folder: Path) -> Path:
    """Copy the files that a clone would have, from the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    for name in filter(None, listed):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh copy of the project, no git checkout."""
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making one takes several seconds."""
    from mlflow import MlflowClient

    def make(folder: Path) -> None:
        folder.mkdir()
        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once(tmp_path_factory, "store", make) / "mlflow.db"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder made by one worker of a parallel run and shared by all."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(aside := folder.with_name(f"unfinished-{name}"))
            aside.rename(folder)
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A git clone of the project in which `dvc repro` has run. Read only."""

    def make(folder: Path) -> None:
        copy_project(folder)
        shutil.copy(empty_store, folder / "mlflow.db")
        for command in (
            ["git", "init", "-q"],
            ["git", "config", "user.email", "a@example.org"],
            ["git", "config", "user.name", "a"],
            ["git", "add", "-A"],
            ["git", "commit", "-qm", "start"],
            ["dvc", "repro"],
        ):
            done = run_in(folder, *command)
            assert done.returncode == 0, done.stdout + done.stderr

    finished = made_once(tmp_path_factory, "finished", make)
    return copied(finished, tmp_path_factory.mktemp("repository") / "project")


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """A copy of `repository` to change at will, its outputs up to date."""
    return copied(repository, tmp_path / "clone")


def copied(repository: Path, folder: Path) -> Path:
    """A copy of a finished pipeline."""
    shutil.copytree(repository, folder, symlinks=True)
    with chdir(folder):  # so that its runs know where they are now
        store.follow_project()
    return folder


@contextmanager
def listening(
    folder: Path, command: str, *words: str, setting: str = ""
) -> Iterator[tuple[str, Path]]:
    """A command of the pipeline that listens on a port; see `answering`.

    The port's setting is `COMMAND.port`, unless it is another.
    """
    program = [sys.executable, "-m", "pipeline", command, *words]
    with answering(folder, [*program, f"{setting or command}.port={{port}}"]) as actual:
        yield actual


@contextmanager
def answering(folder: Path, command: list[str]) -> Iterator[tuple[str, Path]]:
    """A server, `{port}` in its command; yields its address and its log once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", folder / f"server-{port}.log"

    def answers() -> bool:
        try:
            return requests.get(f"{address}/", timeout=5).status_code < 500
        except requests.ConnectionError:
            return False

    with log.open("w") as file:
        server = subprocess.Popen(
            [word.format(port=port) for word in command],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 120
        while not answers():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield address, log
    finally:
        server.terminate()
        server.wait(30)
    deadline = time.monotonic() + 30
    while answers():  # MLflow's own process goes first, the server after it
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


@contextmanager
def mlflow_server(store: Path, empty_store: Path) -> Iterator[str]:
    """A team's MLflow server, whose folder has the database and the files."""
    store.mkdir()
    shutil.copy(empty_store, store / "mlflow.db")
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", "{port}"]
    command += ["--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(store / "files")]
    with answering(store, command) as (address, _):
        yield address


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of 12 real PNG files each: dark and bright noise."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    for label, level in (("bright", 200), ("dark", 40)):
        (folder / label).mkdir(parents=True)
        for index in range(12):
            noise = rng.integers(level - 40, level + 40, (20, 30, 3)).astype(np.uint8)
            Image.fromarray(noise).save(folder / label / f"{index}.png")
    return folder


def frozen_part(backbone: Any = None, **changes: Any) -> Any:
    """Settings of a forward pass of the frozen part; of glyph_cnn unless another is named."""
    from pipeline.features import augmentation
    from pipeline.features.source import FrozenPart
    from pipeline.networks import engines
    from pipeline.networks.backbones import glyph_cnn

    usual: dict[str, Any] = {
        "augment": augmentation.Config(),
        "engine": engines.Config(),
        "batch_size": 32,
        "seed": 0,
        "threads": 2,
    }
    return FrozenPart(backbone or glyph_cnn.Config(), **{**usual, **changes})


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium, headless and without a network."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs chromium and chromedriver: apt install chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--window-size=1500,4000", f"--user-data-dir={tmp_path / 'profile'}"),
    ):
        options.add_argument(option)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()
