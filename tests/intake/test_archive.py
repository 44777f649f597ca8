"""Archives from disk and HTTP: resumed, verified, never extracted outside their folder."""

import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.intake.sources import archive
from pipeline.storage.digests import file_sha256


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; can break off after some bytes, can ignore ranges."""

    content = b""
    break_after: int | None = None
    ranges = True
    requested: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requested.append(wanted)
        start = (
            int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        )
        if start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.break_after is not None:
            body, self.server.break_after = body[: self.server.break_after], None
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.requested = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def tar(image_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "images.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(image_folder, "wrapped/images")
    return path


@pytest.fixture(autouse=True)
def _own_folder(cwd: Path) -> None:
    """Archives are extracted below the project's folder."""


def actual(config: archive.Config) -> list[str]:
    return [f"{p.label}:{Path(p.path).name}" for p in archive.images(config)]


EXPECTED = sorted(f"{label}:{n}.png" for label in ("bright", "dark") for n in range(12))


def config(url: object, sha256: str = "", **settings: object) -> archive.Config:
    sha256 = sha256 or file_sha256(Path(str(url)))
    return archive.Config(url=str(url), sha256=sha256, **settings)


def test_a_local_tar_and_zip(tar: Path, image_folder: Path, tmp_path: Path) -> None:
    assert sorted(actual(config(tar))) == EXPECTED
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for image in image_folder.rglob("*.png"):
            file.write(image, image.relative_to(image_folder))
    assert sorted(actual(config(path))) == EXPECTED


def test_a_download_that_breaks_off_is_resumed(tar: Path, server: Server, tmp_path: Path) -> None:
    server.content, server.break_after = tar.read_bytes(), 20_000
    wanted = config(f"http://127.0.0.1:{server.server_port}/images.tar.gz", file_sha256(tar))
    with pytest.raises(InputError, match=r"cannot download .* run again to resume"):
        actual(wanted)
    assert sorted(actual(wanted)) == EXPECTED
    assert server.requested == [None, "bytes=16384-"]  # whole blocks are kept
    assert sorted(actual(wanted)) == EXPECTED
    assert len(server.requested) == 2  # the extracted folder is there


def test_a_server_without_ranges_starts_again(tar: Path, server: Server, tmp_path: Path) -> None:
    server.content, server.break_after, server.ranges = tar.read_bytes(), 1000, False
    url = f"http://127.0.0.1:{server.server_port}/images.tar.gz"
    wanted = config(url, file_sha256(tar))
    with pytest.raises(InputError):
        actual(wanted)
    assert sorted(actual(wanted)) == EXPECTED


def test_another_file_than_the_one_meant(tar: Path, server: Server, tmp_path: Path) -> None:
    server.content = tar.read_bytes()
    url = f"http://127.0.0.1:{server.server_port}/images.tar.gz"
    with pytest.raises(InputError, match="must have the SHA-256 0000"):
        actual(config(url, "0" * 64))
    with pytest.raises(InputError, match="must have the SHA-256 0000"):
        actual(config(tar, "0" * 64))
    with pytest.raises(InputError, match="no such file"):
        actual(config("nowhere.tar", "0" * 64))


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot download"):
        actual(config("http://127.0.0.1:9/x.tar", "0" * 64))


def evil_tar(path: Path, member: tarfile.TarInfo, content: bytes = b"x") -> Path:
    with tarfile.open(path, "w") as file:
        member.size = len(content) if member.isreg() else 0
        file.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png", "a/../../out.png"])
def test_no_path_leaves_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    tar = evil_tar(tmp_path / "work" / "evil.tar", tarfile.TarInfo(name))
    packed = tmp_path / "work" / "evil.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(name, b"x")
    if ".." in name:
        with pytest.raises(InputError, match=r"contains .*, which leads out of its folder"):
            actual(config(tar))
    else:  # tarfile takes it as relative to the folder
        actual(config(tar))
    with pytest.raises(InputError, match="leads out of its folder"):
        actual(config(packed))
    outside = [p for p in tmp_path.rglob("out.png") if ".work/archives" not in str(p)]
    assert not outside
    assert not Path("/tmp/out.png").exists()


def test_no_links_out(tmp_path: Path) -> None:
    link = tarfile.TarInfo("a/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(InputError, match=r"a/link\.png, a link to /etc/passwd"):
        actual(config(evil_tar(tmp_path / "link.tar", link)))
    packed = tmp_path / "link.zip"
    with zipfile.ZipFile(packed, "w") as file:
        info = zipfile.ZipInfo("a/link.png")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="contains a link"):
        actual(config(packed))


def test_a_size_limit_holds_against_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_GB", 0.001)
    packed = tmp_path / "bomb.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/zeros.png", bytes(20_000_000))
    assert packed.stat().st_size < 50_000
    with pytest.raises(InputError, match=r"more than 0\.001 GB: extract it"):
        actual(config(packed))
    assert not [
        p for p in (tmp_path / ".work").rglob("*") if p.is_file() and p.stat().st_size > 1e6
    ]


def test_neither_zip_nor_tar(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(os.urandom(1000))
    with pytest.raises(InputError, match="but is none of them"):
        actual(config(path))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("missing", [0.5, 0.9, 0.999])
def test_a_tar_that_is_cut_off_is_not_taken_in_part(
    image_folder: Path, tmp_path: Path, suffix: str, missing: float
) -> None:
    whole = tmp_path / f"whole.tar{suffix}"
    with tarfile.open(whole, f"w:{suffix[1:]}") as file:
        file.add(image_folder, "images")
    cut = tmp_path / f"cut.tar{suffix}"
    content = whole.read_bytes()
    used = content if suffix else content.rstrip(b"\0")  # the end blocks count as missing
    cut.write_bytes(used[: int(len(used) * missing)])
    with pytest.raises(InputError, match="download it again"):
        actual(config(cut))
    assert not [path for path in (tmp_path / ".work/archives").iterdir() if path.is_dir()], (
        "no part stays"
    )


def test_a_zip_that_rotted_is_not_taken_in_part(image_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rotten.zip"
    with zipfile.ZipFile(path, "w") as pack:
        for file in sorted(image_folder.rglob("*.png")):
            pack.write(file, file.relative_to(image_folder))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        actual(config(path))


def test_a_zip_with_a_password_and_one_of_another_method(tmp_path: Path) -> None:
    path = tmp_path / "odd.zip"
    for offset, value, message in ((8, 1, "but cat/0.png is"), (10, 9, "no. 9, cat/0.png")):
        with zipfile.ZipFile(path, "w") as pack:
            pack.writestr("cat/0.png", b"x" * 100)
        content = bytearray(path.read_bytes())
        start = content.index(b"PK\1\2")  # the entry in the directory at the end
        content[start + offset] = value
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            actual(config(path))


def test_a_zip_made_on_windows(image_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as pack:
        for name in ("bright", "dark"):
            pack.writestr(f"{name}\\", b"")
            for file in sorted((image_folder / name).iterdir()):
                pack.write(file, f"{name}\\{file.name}")
    assert sorted(actual(config(path))) == EXPECTED


class BareName(zipfile.ZipInfo):
    """Python's zipfile writes UTF-8 with a flag; other programs write bytes without it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("cp437"), 0


@pytest.mark.parametrize("encoding", ["cp932", "utf-8"])
def test_names_in_another_code_page(image_folder: Path, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "names.zip"
    with zipfile.ZipFile(path, "w") as pack:
        for label in ("日本", "犬"):
            for place in range(2):
                entry = BareName(f"{label}/{place}.png".encode(encoding).decode("cp437"))
                pack.writestr(entry, (image_folder / "dark" / f"{place}.png").read_bytes())
    setting = {} if encoding == "utf-8" else {"encoding": encoding}
    labels = {item.partition(":")[0] for item in actual(config(path, **setting))}
    assert labels == {"日本", "犬"}


def test_queued_experiments_extract_once(
    tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC runs experiments in copies of the project below `.dvc/tmp`."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for number in range(2):
        copy = tmp_path / ".dvc" / "tmp" / "exps" / str(number)
        copy.mkdir(parents=True)
        monkeypatch.chdir(copy)
        assert sorted(actual(config(tar))) == EXPECTED
        assert not (copy / ".work").exists()
    assert len(list((tmp_path / ".work" / "archives").glob("[0-9a-f]*/wrapped"))) == 1
