"""A local or remote .zip, .tar or .tar.gz with a known SHA-256, then treated as a folder.

url or path -> downloaded (resumed if the server can) -> verified -> extracted -> images.
"""

import errno
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

import requests
from filelock import FileLock
from tqdm import tqdm

from pipeline.data import names
from pipeline.errors import InputError
from pipeline.intake import layout
from pipeline.intake.sources import Sample, SourceConfig
from pipeline.settings import REQUIRED, setting
from pipeline.storage import workspace
from pipeline.storage.digests import file_sha256
from pipeline.storage.outputs import replacing

MAX_GB = 50.0
"""Maximum size of the extracted files; more is rejected as an archive bomb."""
_TIMEOUT_S = 30
_ENCRYPTED, _SAYS_UTF8 = 0x1, 0x800  # flags of a zip's entry
_ENCODINGS = ("cp437", "cp1252", "cp932", "gb18030", "big5", "cp949", "cp866", "cp1251")
"""Encodings that archivers of different countries use for names."""
_IMPOSSIBLE = (errno.EISDIR, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG)
_DAMAGED = (zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclass
class Config(SourceConfig):
    """An archive: `path`, or `url`."""

    kind: str = "archive"
    url: str = setting("${.path}", "URL or local path of the archive.")
    sha256: str = setting(REQUIRED, "SHA-256 digest of the archive, in hex.")
    splits: dict[str, str] = setting(
        {}, "Use folders as splits, for example {val: test}; {train: class} if train/ is a class."
    )
    encoding: str | None = setting(
        None, "Encoding of file names that are not UTF-8, such as cp932 for .zip files from Japan."
    )


def images(config: Config) -> Iterator[Sample]:
    """Yield the images of an archive.

    Raises:
        InputError: It is not available, not the expected one, or contains what an archive of
            images should not.
    """
    folder = workspace.root() / ".work" / "archives" / config.sha256[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            archive = _fetch(config.url, config.sha256, Path(f"{folder}.download"))
            with replacing(folder) as aside:
                _extract(archive, aside, config)
            Path(f"{folder}.download").unlink(missing_ok=True)
    yield from layout.walk(folder, config.splits, config.ignore)


def _fetch(url: str, sha256: str, target: Path) -> Path:
    remote = url.startswith(("http://", "https://"))
    archive = target if remote else Path(url)
    if remote:
        _download(url, target)
    elif not archive.is_file():
        raise InputError(f"data.url must be an archive or its address, got {url}: no such file")
    digest = file_sha256(archive)
    if digest != sha256.lower():
        if remote:
            target.unlink()
        raise InputError(
            f"{url} must have the SHA-256 {sha256}, got {digest}: it changed or is another "
            "archive; check it, then set data.sha256"
        )
    return archive


def _download(url: str, target: Path) -> None:
    """Download, resuming an earlier attempt if the server can."""
    have = target.stat().st_size if target.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # everything is already here; the digest is checked later
            answer.raise_for_status()
            resumed = answer.status_code == requests.codes.partial_content
            left = answer.headers.get("Content-Length")
            with (
                target.open("ab" if resumed else "wb") as file,
                tqdm(
                    desc=f"download {PurePosixPath(url).name}",
                    total=int(left) + have * resumed if left else None,
                    initial=have * resumed,
                    unit="B",
                    unit_scale=True,
                    disable=None,
                ) as bar,
            ):
                for block in answer.iter_content(1 << 14):
                    file.write(block)
                    bar.update(len(block))
    except requests.RequestException as error:
        raise InputError(
            f"cannot download {url}: {error}; what has arrived is kept, run again to resume"
        ) from error


def _extract(archive: Path, target: Path, config: Config) -> None:
    max_bytes = int(MAX_GB * 1e9)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, target, max_bytes, config.encoding)
        elif tarfile.is_tarfile(archive):
            _untar(archive, target, max_bytes, config.encoding)
        else:
            raise InputError(
                f"{archive} must be a .zip, .tar or .tar.gz, but is none of them or is incomplete: "
                "download it again"
            )
    except tarfile.FilterError as error:
        raise InputError(
            f"{archive} contains {_linked(error.tarinfo)}, which leads out of its folder: create "
            "it again without, or extract it yourself and set data.use=folder"
        ) from error
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        name = Path(str(error.filename)).name[:80]
        raise InputError(
            f"{archive} contains names that cannot exist together, such as {name} "
            f"({error.strerror}): create it again, or extract it yourself and set data.use=folder"
        ) from error
    except (*_DAMAGED, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{archive} is damaged and cannot be extracted ({error}): download it again"
        ) from error


def _untar(archive: Path, target: Path, max_bytes: int, encoding: str | None) -> None:
    with (
        archive.open("rb") as file,
        tqdm.wrapattr(
            *(file, "read", archive.stat().st_size), desc="extract", unit="B", disable=None
        ) as stream,
        tarfile.open(fileobj=cast(BinaryIO, stream), encoding=encoding or "utf-8") as tar,
    ):
        budget = max_bytes
        for member in tar:
            budget = _charge(archive, budget, member.size, max_bytes)
            inside = member.name.lstrip("/")
            if member.isfile() and ".." not in PurePosixPath(inside).parts:
                free = _free(target / inside).relative_to(target)
                member = member.replace(name=str(free), deep=False)
            # The filter refuses absolute paths, `..`, links out of the target and devices.
            try:
                tar.extract(member, target, filter="data")
            except KeyError as error:  # from a hard link
                raise InputError(
                    f"{archive} contains {_linked(member)}, which is not in it: create it again "
                    "with that file"
                ) from error
        _check_end(archive, tar)


def _linked(member: tarfile.TarInfo) -> str:
    link = f", a link to {names.display(member.linkname)}" if member.linkname else ""
    return f"{names.display(member.name)}{link}"


def _check_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Stop at a tar without its end: tarfile accepts anything that is not a header."""
    stream = tar.fileobj
    assert stream is not None
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise InputError(
            f"{archive} is cut off or damaged after {tar.offset} bytes, {len(tar.getmembers())} "
            "files: download it again"
        )
    while stream.read(1 << 20):  # to the end, where compressed ones have their checksum
        pass


def _unzip(archive: Path, target: Path, max_bytes: int, encoding: str | None) -> None:
    with _opened(archive, encoding) as pack:
        budget = max_bytes
        for member in tqdm(pack.infolist(), desc="extract", unit="file", disable=None):
            plain = member.filename.replace("\\", "/")
            name = PurePosixPath(plain)
            if name.is_absolute() or ".." in name.parts:
                raise InputError(
                    f"{archive} contains {member.filename!r}, which leads out of its folder"
                )
            if stat.S_ISLNK(member.external_attr >> 16):
                raise InputError(
                    f"{archive} contains a link, {member.filename!r}: create it without"
                )
            if plain.endswith("/"):
                continue
            path = _free(target / name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with _content(archive, pack, member) as source, path.open("wb") as file:
                # Counted while reading: the sizes in a zip can be wrong.
                while block := source.read(1 << 20):
                    budget = _charge(archive, budget, len(block), max_bytes)
                    file.write(block)


def _free(path: Path) -> Path:
    """Return an unused path: an archive may contain a name twice, and both count."""
    number, free = 2, path
    while free.is_file():
        free, number = path.with_stem(f"{path.stem}~{number}"), number + 1
    return free


def _opened(archive: Path, encoding: str | None) -> zipfile.ZipFile:
    """Open a zip whose names are in the given encoding, or in UTF-8 if they are valid."""
    if encoding is None:
        try:
            return zipfile.ZipFile(archive, metadata_encoding="utf-8")
        except UnicodeDecodeError:
            pack = zipfile.ZipFile(archive)  # reads such names as cp437
            _check_folders(archive, pack)
            return pack
    try:
        return zipfile.ZipFile(archive, metadata_encoding=encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(
            f"data.encoding does not fit the names in {archive}, got {encoding}: {error}"
        ) from error


def _check_folders(archive: Path, pack: zipfile.ZipFile) -> None:
    """Stop at folder names of unknown encoding: they become the classes."""
    for member in pack.infolist():
        folder = member.filename.replace("\\", "/").rpartition("/")[0]
        if folder.isascii() or member.flag_bits & _SAYS_UTF8:
            continue
        readings = {
            encoding: text
            for encoding in _ENCODINGS
            if (text := _read_as(folder, encoding)) and text.isprintable()
        }
        listed = ", ".join(f"{encoding} reads {text!r}" for encoding, text in readings.items())
        raise InputError(
            f"{archive} does not say how its folder names are encoded, and they are not UTF-8: set "
            f"data.encoding; for the first name, {listed}"
        )


def _read_as(name: str, encoding: str) -> str:
    """Read a cp437 name in another encoding; empty if it is invalid there."""
    try:
        return name.encode("cp437").decode(encoding)
    except UnicodeError:
        return ""


def _content(archive: Path, pack: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    remedy = "extract it with another program and set data.use=folder"
    if member.flag_bits & _ENCRYPTED:
        raise InputError(f"{archive} must not be encrypted, but {member.filename} is: {remedy}")
    try:
        return pack.open(member)
    except NotImplementedError as error:
        raise InputError(
            f"{archive} uses a compression method that Python does not support "
            f"(no. {member.compress_type}, {member.filename}): {remedy}"
        ) from error


def _charge(archive: Path, budget: int, size: int, max_bytes: int) -> int:
    if size > budget:
        raise InputError(
            f"{archive} extracts to more than {max_bytes / 1e9:g} GB: extract it with another "
            "program and set data.use=folder"
        )
    return budget - size
