"""Read, check, decode and split the images.

source -> manifest.csv, quarantine.csv, left_out.csv, classes.txt, images.npy, summary.json.
Has no TensorFlow import.

    python -m pipeline prepare prepare.image_size=96
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.cluster.connection import Config as Cluster
from pipeline.data import manifest, tasks
from pipeline.data.decoding import Decoding, Fit, Tones
from pipeline.data.manifest import CALIBRATION, SPLITS, Row
from pipeline.data.tasks import Task
from pipeline.intake import sizing, soundness, sources
from pipeline.intake.account import Account
from pipeline.intake.judging import judge
from pipeline.intake.sources import Sample, SourceConfig
from pipeline.intake.splitting import Shares, assign
from pipeline.settings import AutoInt, automatic, is_auto, setting
from pipeline.storage import derived, tables
from pipeline.storage.arrays import row_writer
from pipeline.storage.derived import Derived
from pipeline.storage.digests import file_sha256
from pipeline.storage.outputs import Folders
from pipeline.storage.tables import write_json

_MAX_CLASSES = 12


@dataclass
class Config:
    """Section `prepare`."""

    image_size: AutoInt = automatic(
        "Side of the square images in px. `auto` uses the images' own size.", least=1
    )
    fit: Fit = setting(Fit.crop, "Crop the centre, squash the aspect ratio, or pad with white.")
    train_per_class: int | None = setting(
        None, "Training images per class; null uses train_fraction.", least=1
    )
    val_per_class: int | None = setting(
        None, "Validation images per class; null uses val_fraction.", least=1
    )
    train_fraction: float = setting(
        0.7, "Fraction of training images, if the source has no splits.", above=0, below=1
    )
    val_fraction: float = setting(
        0.15, "Fraction of validation images; the rest is for test.", above=0, below=1
    )
    calibration_fraction: float = setting(
        0.0,
        "Fraction of training images set aside for calibration: enables prediction sets with "
        "guaranteed coverage (predict --coverage, serve.coverage).",
        least=0,
        below=1,
        advanced=True,
    )
    exclude: str | None = setting(
        None,
        "Csv file with a column path that lists images to exclude, such as "
        "outputs/evaluate/label_errors.csv.",
    )
    max_bad_fraction: float = setting(
        0.1,
        "Tolerated fraction of unusable files; they are listed in quarantine.csv.",
        least=0,
        most=1,
        advanced=True,
    )

    @property
    def shares(self) -> Shares:
        """Sizes of the splits."""
        return Shares(*(getattr(self, item.name) for item in fields(Shares)))

    def check(self, section: str) -> None:
        """Check settings of the splits that depend on each other."""
        self.shares.check()


def run(
    config: Config, seed: int, data: SourceConfig, cluster: Cluster, folders: Folders
) -> dict[str, float]:
    """Prepare a dataset; returns numbers of images.

    Raises:
        InputError: Too many unusable files, or a class or split with too few images.
    """
    values: dict[str, Derived] = {}
    out, pixels = folders.out, folders.out / "images.npy"
    if is_auto(config.image_size):
        side = values["prepare.image_size"] = sizing.derive(sources.images(data, "sizes"))
        config = replace(config, image_size=int(side.value))
    tones = None if is_auto(data.depth) else Tones.of_depth(data.depth)
    how = Decoding(config.fit, tones, data.pages, data.max_megapixels)
    where = config.image_size, pixels, cluster, sources.count(data, "list")
    left_out: list[Sample] = []
    chosen = sources.task(data)
    task = tasks.named(str(chosen.value))
    judged, bad, deep = _decode_all(sources.images(data, left_out=left_out), how, *where)
    if deep and how.tones is None:
        common, values["data.depth"] = sizing.common_tones(deep)
        how = replace(how, tones=common)
        if any(tones != common for tones in deep.values()):
            judged, bad, _ = _decode_all(sources.images(data), how, *where)
    if tasks.recorded(task):
        values["data.task"] = chosen
    derived.report(values)
    derived.write(out, values)
    if not judged:
        print(Account.of(judged, left_out, data.ignore))
    soundness.check_vanished(judged, bad, task)
    soundness.check_files(judged, bad, config.max_bad_fraction)
    excluded = soundness.excluded(Path(config.exclude), judged) if config.exclude else {}
    rows, reasons = assign(judged, {**excluded, **bad}, config.shares, seed, task)
    soundness.check_vanished(rows, reasons, task)
    account = Account.of(rows, left_out, data.ignore)
    print(account)
    used = [row.verdict in manifest.KEPT for row in rows]
    _drop_rows(pixels, [row.path not in bad for row in rows], used)
    kept = [row for row, keep in zip(rows, used, strict=True) if keep]
    classes = soundness.check_classes(kept, task, getattr(data, "target", None) or task.noun)

    manifest.write_rows(out / "manifest.csv", rows)
    listed = [(r.path, r.label, r.sha256, reasons[r.path]) for r in rows if r.path in reasons]
    tables.write_table(out / "quarantine.csv", ("path", "label", "sha256", "reason"), listed)
    (out / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    digest = file_sha256(pixels)
    account.write(out)
    summary = {"decoding": asdict(how), "images_sha256": digest, "files": account.to_json()}
    write_json(out / "summary.json", summary | tasks.recorded(task))
    counts = Counter(row.split for row in kept)
    splits = (*SPLITS, CALIBRATION) if counts[CALIBRATION] else SPLITS
    duplicates = sum(row.verdict == "duplicate" for row in rows)
    print(
        f"{len(kept)} images{_counted(kept, task)}: "
        + ", ".join(f"{counts[split]} {split}" for split in splits)
        + f"; {duplicates} duplicates"
    )
    return {
        **{f"images_{split}": counts[split] for split in splits},
        "quarantined": account.quarantined,
        "left_out": sum(account.to_json()["left_out"].values()),
        "duplicates": duplicates,
        "classes": len(classes),
    }


def _counted(rows: list[Row], task: Task) -> str:
    """List the classes with their numbers of images, as far as they fit in a line."""
    counts = Counter(name for row in rows for name in task.names(row.label))
    listed = [f"{name} {counts[name]}" for name in sorted(counts)[:_MAX_CLASSES]]
    more = len(counts) - len(listed)
    names = ", ".join(listed) + (f" and {more} more" if more else "")
    return f" of {len(counts)} {task.noun} ({names})" if counts else ""


def _decode_all(
    images: Iterable[Sample],
    how: Decoding,
    size_px: int,
    target: Path,
    cluster: Cluster,
    total: int | None,
) -> tuple[list[Row], dict[str, str], dict[str, Tones]]:
    """Decode every image and write the pixels of usable ones to `target`, in order.

    Returns:
        A row for each image; path -> reason for unusable ones; path -> tones for those with more
        than 8 bits.
    """
    rows, bad, deep = [], {}, {}
    with row_writer(target, (size_px, size_px, 3), np.uint8) as append:
        for row, verdict in judge(images, size_px, how, "prepare", cluster, total):
            rows.append(row)
            if isinstance(verdict, str):
                bad[row.path] = verdict
                continue
            append(verdict.pixels[None])
            if verdict.tones:
                deep[row.path] = verdict.tones
    return rows, bad, deep


def _drop_rows(path: Path, present: list[bool], used: list[bool]) -> None:
    """Remove rows from `path` that were decoded but are not used."""
    keep = [used_row for decoded, used_row in zip(present, used, strict=True) if decoded]
    if all(keep):
        return
    before = np.load(path, mmap_mode="r")
    aside = path.with_suffix(".kept")
    with row_writer(aside, before.shape[1:], np.uint8) as append:
        chosen = np.flatnonzero(keep)
        for index in tqdm(chosen, "dropping rows", unit="image", delay=1, disable=None):
            append(before[index][None])
    aside.replace(path)
