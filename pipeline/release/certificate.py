"""A certificate: a result, and everything that it depends on, in one JSON file.

outputs + environment -> certificate; two certificates -> the lines that differ. Whoever has the
same data reruns the pipeline, makes a certificate of the new outputs and compares it with the
first. It is signed by its content alone: an edited one has another digest, and a new digest does
not help, as the rerun has other values.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.data import manifest, predictions
from pipeline.data.manifest import SPLITS, Row
from pipeline.errors import InputError, redacted, shortened
from pipeline.evaluation import near_duplicates
from pipeline.storage import tables
from pipeline.storage.digests import code_sha256, file_sha256
from pipeline.storage.outputs import ROOT, STAGES
from pipeline.tracking import provenance

Section = Mapping[str, Any]

PATH = ROOT / "certificate.json"
SECTIONS = {
    "code": "digests",
    "environment": "versions",
    "settings": "settings",
    "images": "images",
    "splits": "counts",
    "outputs": "files, byte for byte",
    "predictions": "labels",
    "metrics": "values",
}
"""Sections that are compared, in order -> what they consist of."""

_DIGEST = "sha256"
_EDITABLE = ("dvc.yaml", "requirements.txt", "conf")
_PINNED = re.compile(r"^([\w.-]+)==", re.MULTILINE)
_FILES = (".path", ".exclude")
"""Endings of settings that name files, whose content is recorded instead."""
_HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")
_MOST = 5


@dataclass(frozen=True)
class Line:
    """Comparison of a section: its name, whether it is the same, and details."""

    name: str
    same: bool
    text: str


def make(settings: Section, processor: str, minutes: float | None) -> dict[str, Any]:
    """Make the certificate of the present outputs.

    Raises:
        InputError: Outputs are missing or damaged.
    """
    try:
        rows = manifest.read_rows(ROOT / "prepare" / "manifest.csv")
        tags = provenance.git_tags()
        commit = tags.get("git.commit", "none")
        names = {n: str(v) for n, v in settings.items() if not n.endswith(_FILES)}
        content = {
            "commit": f"{commit} with changes" if tags.get("git.dirty") == "true" else commit,
            "processor": processor,
            "minutes": minutes,
            "code": {"pipeline": code_sha256(), **_digests(*map(Path, _EDITABLE))},
            "environment": {"python": platform.python_version(), **_versions()},
            "settings": {name: redacted(value) for name, value in names.items()},
            "images": {row.path: f"{_use(row)} {row.label} {row.sha256}" for row in rows},
            "splits": _audit(rows),
            "outputs": on_disk(),
            "predictions": _predictions(),
            "metrics": _metrics(),
        }
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the outputs are incomplete or damaged ({shortened(str(error))}): run dvc repro, or "
            "dvc checkout to restore them"
        ) from error
    return {**content, _DIGEST: _digest(content)}


def read(path: Path) -> dict[str, Any]:
    """Read a certificate.

    Raises:
        InputError: The file does not exist, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no certificate at {path} ({error.strerror}): give its path") from error
    except ValueError as error:
        raise InputError(f"{path} is not a certificate ({error}): fetch it again") from error
    content = content if isinstance(content, dict) else {}
    absent = [name for name in SECTIONS if not isinstance(content.get(name), dict)]
    absent += [name for name in ("processor", _DIGEST) if not isinstance(content.get(name), str)]
    if absent:
        raise InputError(f"{path} is not a certificate (no {absent[0]}): fetch it again")
    return dict(content)


def intact(certified: Mapping[str, Any]) -> Line:
    """Check that a certificate has the digest that it states."""
    actual = _digest({name: value for name, value in certified.items() if name != _DIGEST})
    if actual == certified[_DIGEST]:
        return Line("certificate", True, f"unedited, {actual[:12]}")
    text = f"edited: it states {str(certified[_DIGEST])[:12]}, its content has {actual[:12]}"
    return Line("certificate", False, text)


def on_disk() -> dict[str, str]:
    """Map every file of the stages' outputs to its digest."""
    return _digests(*(ROOT / stage for stage in STAGES))


def compare(certified: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[Line]:
    """Compare the sections of two certificates; on another processor, labels decide."""
    lines = {name: section(name, certified[name], actual[name]) for name in SECTIONS}
    lines["predictions"] = _labels(certified["predictions"], actual["predictions"])
    before, here = certified["processor"], actual["processor"]
    other = before != here
    for name, line in lines.items():
        tolerated = other and lines["predictions"].same and name in ("outputs", "metrics")
        yield Line(name, line.same or tolerated, line.text)
        if name == "environment":
            text = f"another kind, so last bits may differ: {before} -> {here}" if other else here
            yield Line("processor", True, text)


def section(name: str, certified: Section, actual: Section) -> Line:
    """Compare a section by name of its entries."""
    if name == "images":
        certified = _moved(certified, actual)
    differing = [
        f"{key}: {certified.get(key, 'absent')} -> {actual.get(key, 'absent')}"
        for key in dict.fromkeys([*certified, *actual])
        if certified.get(key) != actual.get(key)
    ]
    if not differing:
        return Line(name, True, f"same {len(actual)} {SECTIONS[name]}")
    more = f"; and {len(differing) - _MOST} more" if len(differing) > _MOST else ""
    text = _HEX.sub(r"\1", "; ".join(differing[:_MOST]))
    return Line(name, False, f"{len(differing)} differ: {text}{more}")


def leaks(certificate: Mapping[str, Any]) -> list[str]:
    """Describe what test images may share with training images."""
    return [
        f"{count} test images: {name}"
        for name, count in certificate["splits"].items()
        if count and name.endswith("in train or val")
    ]


def _moved(certified: Section, actual: Section) -> dict[str, Any]:
    """Name images that were moved by their present paths."""
    new = {value.split(" ")[-1]: path for path, value in actual.items() if path not in certified}
    return {
        path if path in actual else new.get(str(value).split(" ")[-1], path): value
        for path, value in certified.items()
    }


def _same(first: tuple[float, str], second: tuple[float, str]) -> bool:
    """Check if two predictions, each an output and a label, are the same.

    A predicted number is its own label, and differs in its last bits.
    """
    if first[1] == second[1]:
        return True
    with suppress(ValueError):
        numbers = all(
            math.isclose(out, float(label), rel_tol=1e-6) for out, label in (first, second)
        )
        return numbers and math.isclose(first[0], second[0], rel_tol=1e-4)
    return False


def _labels(certified: Section, actual: Section) -> Line:
    """Compare predictions: the share of equal labels, the largest difference of a probability."""
    changes, largest = [], 0.0
    shared = [path for path in certified if path in actual]
    for path in shared:
        pair = _prediction(certified[path]), _prediction(actual[path])
        (chance, label), (other, predicted) = pair
        if not _same(*pair):
            changes.append(f"{path}: {label} -> {predicted}")
        else:
            largest = max(largest, abs(chance - other))
    text = f"{len(shared) - len(changes)} of {len(certified)} labels are the same"
    text += f", largest difference of a probability {largest:.2g}"
    if len(actual) > len(shared):
        text += f", {len(actual) - len(shared)} are of other images"
    same = not changes and len(shared) == len(certified) == len(actual)
    return Line("predictions", same, "; ".join([text, *changes[:_MOST]]))


def _prediction(text: object) -> tuple[float, str]:
    chance, _, label = str(text).partition(" ")
    try:
        return float(chance), label
    except ValueError as error:
        raise InputError(
            f"a prediction in the certificate must be a probability and a label, got {text!r}: "
            "fetch it again"
        ) from error


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digests(*paths: Path) -> dict[str, str]:
    files = [file for path in paths for file in (sorted(path.rglob("*")) or [path])]
    return {file.as_posix(): file_sha256(file) for file in files if file.is_file()}


def _versions() -> dict[str, str]:
    """Map the packages in requirements.txt to their installed versions."""
    pinned = Path("requirements.txt")
    names = _PINNED.findall(pinned.read_text(encoding="utf-8")) if pinned.exists() else []
    installed = {}
    for name in names:
        try:
            installed[name.lower()] = metadata.version(name)
        except metadata.PackageNotFoundError:  # pinned for another platform
            continue
    return installed


def _use(row: Row) -> str:
    return row.split if row.verdict in manifest.KEPT else row.verdict


def _audit(rows: list[Row]) -> dict[str, int]:
    """Count images by use, and test images that have relatives in other splits."""
    prepared = tables.read_json(ROOT / "prepare/summary.json")
    files = prepared["files"]
    reasons = tables.read_records(ROOT / "prepare" / "quarantine.csv")
    counts = {"files seen": files["seen"], **Counter(map(_use, rows))}
    counts |= {f"left out, {reason}": n for reason, n in files["left_out"].items()}
    counts["copies in one split"] = sum(row.verdict == "duplicate" for row in rows)
    for name, words in {
        "copies of images in another split, removed": "duplicate of ",
        "of a group in another split, removed": "its group ",
        "the same image under two labels, removed": "the same image is labelled ",
    }.items():
        counts[name] = sum(line["reason"].startswith(words) for line in reasons)
    pairs = tables.read_records(ROOT / "evaluate" / near_duplicates.FILE)
    near = Counter(pair["dropped"] for pair in pairs)
    counts["near copies of images in train or val"] = near["no"]
    counts["near copies, left out of the evaluation"] = near["yes"]
    used = [row for row in rows if row.verdict in manifest.KEPT]
    for column in used[0].extra if used else ():
        values = Counter(row.extra[column] for row in used)
        others = {row.extra[column] for row in used if row.split != "test"}
        if len(SPLITS) <= len(values) <= len(used) / 2:
            shared = [row for row in used if row.split == "test" and row.extra[column] in others]
            counts[f"same {column} as images in train or val"] = len(shared)
    return {name: int(count) for name, count in counts.items()}


def _predictions() -> dict[str, str]:
    saved = predictions.read(ROOT / "evaluate" / predictions.FILE)
    chances = saved.probabilities.max(axis=1)
    return {
        path: f"{chance:.9g} {label}"
        for path, chance, label in zip(saved.paths, chances, saved.decided, strict=True)
    }


def _metrics() -> dict[str, float | None]:
    path = ROOT / "evaluate" / "intervals.json"
    return {
        f"{model} {metric} {end}": value
        for model, metrics in tables.read_json(path).items()
        for metric, ends in metrics.items()
        for end, value in ends.items()
    }
