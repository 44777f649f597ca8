"""The Dockerfile's steps: install, then run as a user without rights in a read-only project."""

import base64
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from conftest import PROJECT, answering, copied, copy_project

STEPS = [
    (word, rest)
    for line in (PROJECT / "Dockerfile").read_text().splitlines()
    for word, _, rest in [line.partition(" ")]
]


def step(word: str) -> str:
    """The last step with an instruction."""
    return [rest for name, rest in STEPS if name == word][-1]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="container-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def binaries(place: Path) -> Path:
    """Install the project as the Dockerfile does, beside the libraries of this environment."""
    venv.create(place / "venv")
    packages = sysconfig.get_path("purelib", vars={"base": str(place / "venv")})
    Path(packages, "libraries.pth").write_text(sysconfig.get_path("purelib"))
    everything = copy_project(place / "everything")
    context = place / "context"
    context.mkdir()
    allowed = (everything / ".dockerignore").read_text().splitlines()
    for names in (rest.split()[:-1] for word, rest in STEPS if word == "COPY"):
        for name in names:
            assert f"!{name}" in allowed
            (everything / name).rename(context / name)
    command = ["python", "-m", *step("RUN").split()]
    command[0] = str(place / "venv" / "bin" / "python")
    with_pip = {"PYTHONPATH": sysconfig.get_path("purelib")}
    done = subprocess.run(command, cwd=context, env=with_pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place / "venv" / "bin"


def mounts(project: Path, place: Path) -> str:
    """Shell commands that make a project read-only, and Python accessible to every user."""
    base = Path(sys.base_prefix)
    python = place / "python"
    python.mkdir()
    lines = [f"mount --bind {project} {project}", f"mount -o remount,bind,ro {project}"]
    closed = [folder for folder in base.parents if not folder.stat().st_mode & 0o001]
    if closed:
        lines += [f"mount --bind {base} {python}", f"mount -t tmpfs -o mode=755 none {closed[-1]}"]
        lines += [f"mkdir -p {base}", f"mount --bind {python} {base}"]
    return "; ".join([*lines, f"cd {project};"])


@pytest.mark.slow
def test_predict_and_serve(
    promoted: Path, binaries: Path, place: Path, image_folder: Path, tmp_path: Path
) -> None:
    project = copied(promoted, place / "project")
    image = shutil.copy(image_folder / "dark" / "0.png", place / "0.png")
    enter = ["unshare", "--mount", "sh", "-ec", f'{mounts(project, place)} exec "$@"', "sh"]
    user = step("USER").partition(":")[0]
    enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    path = f"{binaries}:{Path(sys.executable).parent}:/usr/bin:/bin"
    enter += ["env", "-i", f"PATH={path}", *step("ENV").split()]
    if subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    for path in (project / "x", binaries / "x"):
        assert subprocess.run([*enter, "touch", path], capture_output=True).returncode
    for model in ([], ["--model", "models:/classifier@champion"]):
        words = [*enter, "pipeline", "predict", image, *model]
        done = subprocess.run(words, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "0.png\t" in done.stdout
    command = step("CMD").strip("[]").replace('"', "").split(", ")
    server = [*enter, "timeout", "60", "pipeline", *command, "serve.port={port}"]
    with answering(tmp_path, server) as (address, _):
        content = base64.b64encode(Path(image).read_bytes()).decode()
        rows = {"dataframe_records": [{"image": content}]}
        answer = requests.post(f"{address}/invocations", json=rows, timeout=60)
        assert answer.json()["predictions"][0]["prediction"]
