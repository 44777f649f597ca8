"""Add images to a trained classifier: its lower layers stay, its head is fitted anew.

model.keras + prepared data + new images -> a head. Features of the training images are those that
fine-tuning stored; only new images are computed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data.manifest import CALIBRATION, Manifest, Row
from pipeline.data.predictions import Predictions
from pipeline.data.tasks import Fit, Linear, Outputs, Targets, Task
from pipeline.errors import InputError
from pipeline.features import by_image
from pipeline.features.store import Store
from pipeline.intake import soundness
from pipeline.intake.account import Account
from pipeline.intake.judging import judge
from pipeline.intake.sources import Sample
from pipeline.intake.splitting import assign
from pipeline.networks import model_file
from pipeline.networks.forward import Forward
from pipeline.networks.trust.reference import Reference
from pipeline.release.candidate import ADDED
from pipeline.serving.classifier import MODEL
from pipeline.storage.outputs import ROOT
from pipeline.teaching import pool
from pipeline.teaching.pool import Network, Pool

if TYPE_CHECKING:
    import keras

LEAST = 3
"""Images of a new class: one each to train on, to choose by and to test."""


@dataclass(frozen=True)
class Part:
    """Images of one origin, with the outputs of the trained classifier.

    Attributes:
        rows: N rows.
        outputs: (N, K + D): answers, then features.
    """

    rows: list[Row]
    outputs: Outputs

    def of(self, split: str) -> Part:
        """Select the images of a split."""
        places = [place for place, row in enumerate(self.rows) if row.split == split]
        return Part([self.rows[place] for place in places], self.outputs[places])

    @property
    def labels(self) -> list[str]:
        """N labels."""
        return [row.label for row in self.rows]

    def __add__(self, other: Part) -> Part:
        return Part([*self.rows, *other.rows], np.concatenate([self.outputs, other.outputs]))


class Base:
    """The trained classifier and its images.

    Attributes:
        data: The prepared dataset.
        card: The classifier's card.
        network: The classifier, which returns (N, K + D).

    Raises:
        InputError: There is no trained classifier.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cache = Store(config.activations)
        if not MODEL.exists():
            raise InputError(f"no classifier at {MODEL} to add images to: run dvc repro first")
        self.card = card = model_file.read_card(MODEL)
        self.reference: Reference = model_file.reference_of(MODEL)
        self.data = Manifest(ROOT / "prepare")
        if self.data.classes != card.classes:
            raise InputError(
                f"{MODEL} was trained on other classes than outputs/prepare has: run dvc repro"
            )
        width = len(card.classes) + self.reference.space.axes.shape[0]
        key = by_image.of_model(MODEL, card)
        self.network = Network(key, width, card.image_size, card.decoding, lambda _: self._forward)

    @cached_property
    def model(self) -> keras.Model:
        """The classifier itself."""
        from pipeline.networks import runtime

        runtime.configure(self._config.seed, self.card.threads)
        return model_file.load(MODEL, allow_code=True)[0]

    @cached_property
    def _forward(self) -> Forward:
        return model_file.forward(MODEL, self.card, lambda: self.model)

    def images(self, tested: Sequence[str]) -> Part:
        """Return the prepared images: all but those of test, and some of them.

        Args:
            tested: Paths of the evaluated images.
        """
        wanted = set(tested)
        chosen = [
            place
            for place, row in enumerate(self.data.rows)
            if row.split in ("train", "val", CALIBRATION) or row.path in wanted
        ]
        rows = [self.data.rows[place] for place in chosen]
        digests = [row.sha256 for row in rows]
        stored = by_image.stored(self._cache, self.network.key, digests)
        missing = [n for n, digest in enumerate(digests) if digest not in stored]
        if missing:
            places = np.array(chosen)[missing]
            batches = self._forward.batches(self.data.images, places, "features")
            names = [digests[n] for n in missing]
            width = self.network.width
            computed = by_image.keep(self._cache, self.network.key, names, width, batches)
            stored |= dict(zip(names, computed, strict=True))
        return Part(rows, np.stack([stored[digest] for digest in digests]))

    def read(self, samples: list[Sample]) -> Pool:
        """Read new images, with outputs of the classifier."""
        return pool.read(samples, self.network, self._cache)


def added(base: Base, read: Pool, left_out: list[Sample], config: Config) -> tuple[Part, Account]:
    """Assign splits to new images; leaves out those that the classifier knows.

    Returns:
        Those that are used, with a split; and what became of every file.

    Raises:
        InputError: Nothing is new, or a new class has too few images.
    """
    task = base.data.task
    # The same pixels are the same image, whatever file they are in.
    before = {
        _digest(pixels): row for pixels, row in zip(base.data.images, base.data.rows, strict=True)
    }
    column = getattr(config.data, "group", None)
    groups = {row.extra.get(column, ""): row.split for row in base.data.rows} if column else {}
    bad, rows, following = dict(read.bad), list[Row](), list[Row]()
    left_out = list(left_out)
    judged = judge(read.samples, base.card.image_size, base.card.decoding, "new images")
    for sample, (row, _) in zip(read.samples, judged, strict=True):
        if row.pixels in before:
            same = before[row.pixels].label == sample.label
            why = "already in the data" if same else "in the data with another label"
            left_out.append(replace(sample, left_out=why))
            continue
        row = replace(row, path=f"{ADDED.name}/{sample.path}", width=0, height=0, extra={})
        split = groups.get(sample.group, "") if sample.group else ""
        if split:  # it follows the images of its group
            before[row.pixels] = replace(row, split=split, group="")
            following.append(before[row.pixels])
        else:
            rows.append(row)
    # Counts per class were chosen for all images, not for a few new ones.
    shares = replace(config.prepare.shares, train_per_class=None, val_per_class=None)
    assigned, contradicting = assign(rows, {}, shares, config.seed, task)
    bad |= contradicting
    used = [row for row in assigned if row.verdict == "ok"] + following
    copies = [row.path for row in assigned if row.verdict == "duplicate"]
    bad |= dict.fromkeys(copies, "a copy of another")
    left_out += [Sample(path, "", left_out=why) for path, why in bad.items()]
    account = Account(len(used), 0, left_out, ())
    if not used:
        raise InputError(f"no image can be added: {account}")
    counts = Counter(name for row in used for name in task.names(row.label))
    test = str(config.evaluate.split)
    split_of = {(name, row.split) for row in used for name in task.names(row.label)}
    for name in sorted(set(counts) - set(base.data.classes)):
        if counts[name] < LEAST:
            raise InputError(
                f"a new class needs at least {LEAST} images, got {counts[name]} of {name!r}: add "
                "more"
            )
        for split in ("train", test):
            if (name, split) not in split_of:
                raise InputError(
                    f"a new class needs images in train and {test}, got none of the "
                    f"{counts[name]} of {name!r} in {split}: add more, or leave their split empty"
                )
    soundness.check_names(sorted({*counts, *base.data.classes}))
    outputs = dict(zip(read.digests, read.features, strict=True))
    return Part(used, np.stack([outputs[row.sha256] for row in used])), account


def check_same(before: Predictions, old: Part) -> None:
    """Check that predictions are the classifier's for these images.

    Raises:
        InputError: They are those of other images, or of another classifier.
    """
    own = old.outputs[:, : before.probabilities.shape[1]]
    paths = [row.path for row in old.rows]
    if paths != list(before.paths) or not np.allclose(own, before.probabilities, 0.01, 0.01):
        raise InputError("outputs/evaluate belongs to another classifier or split: run dvc repro")


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class Head:
    """A head fitted to old and new images.

    Attributes:
        task: What is predicted.
        classes: K' names.
        linear: Its weights, with the temperature.
        fitted: Targets that it was fitted to.
        start: Position of the features in outputs, the old K.
    """

    task: Task
    classes: list[str]
    linear: Linear
    fitted: Targets
    start: int

    def outputs(self, part: Part) -> Outputs:
        """Return (N, K' + D): new answers, then features."""
        features = part.outputs[:, self.start :]
        return np.hstack([self.task.applied(features, self.linear, self.fitted), features])

    def targets(self, part: Part) -> Targets:
        """Return the targets of images."""
        return self.task.targets(part.labels, self.classes)


def fit(base: Base, old: Part, new: Part, config: Config) -> Head:
    """Fit a head to the training images, old and new, and calibrate it on those of validation."""
    task, start = base.data.task, len(base.card.classes)
    more = {name for row in new.rows for name in task.names(row.label)}
    classes = sorted({*base.card.classes, *more}) if more else base.card.classes
    train, val = old.of("train") + new.of("train"), old.of("val") + new.of("val")
    targets = task.targets(train.labels, classes)
    balanced = config.train_head.class_weight is not None
    how = Fit(len(classes), config.seed, config.threads, balanced)
    features = train.outputs[:, start:]
    # What occurs on a single image says nothing of a class, but would decide where it occurs again.
    single = (features != features.min(axis=0)).sum(axis=0) < 2
    linear = task.fit(np.where(single, 0, features), targets, how)
    head = Head(task, classes, linear, targets, start)
    if config.finetune.calibrate and task.calibrates:
        answers = head.outputs(val)[:, : len(classes)]
        judged = task.judge(head.targets(val), answers, str(config.train_head.monitor))
        weights, biases, how_fitted = linear
        by = judged["temperature"]
        head = replace(head, linear=(weights / by, biases / by, how_fitted))
    return head
