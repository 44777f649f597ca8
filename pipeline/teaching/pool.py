"""The pool: images of a folder, and what a network makes of each.

folder + network -> rows with features (N, D). Only images that are new to the network are computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import image_file, names
from pipeline.data.decoding import Decoding
from pipeline.data.image_file import Pixels
from pipeline.data.manifest import Row
from pipeline.errors import InputError
from pipeline.features import by_image
from pipeline.features.store import Key, Store
from pipeline.intake import named_files, sizing
from pipeline.intake.judging import judge
from pipeline.intake.sources import Sample
from pipeline.networks import backbones
from pipeline.networks.forward import Forward
from pipeline.storage import progress

Floats = NDArray[np.float32]

_CHUNK = 512


@dataclass(frozen=True)
class Network:
    """A network and everything that its outputs depend on.

    Attributes:
        key: The latter, besides the image.
        width: D.
        size_px: Side of the images.
        decoding: Settings for decoding.
        forward: First images -> its forward pass; called if any image is new.
    """

    key: Key
    width: int
    size_px: int
    decoding: Decoding
    forward: Callable[[Pixels], Forward]


@dataclass(frozen=True)
class Pool:
    """Images with features.

    Attributes:
        samples: N images that can be read.
        digests: N digests of their files.
        features: (N, D).
        bad: Path -> why a file is not used.
    """

    samples: list[Sample]
    digests: list[str]
    features: Floats
    bad: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Account for all files in one line."""
        first = next(iter(self.bad.items()), None)
        more = f" (the first is {first[0]}: {first[1]})" if first else ""
        seen = len(self.samples) + len(self.bad)
        return f"{seen} files: {len(self.samples)} used, {len(self.bad)} quarantined{more}"


def listed(folder: Path, labels: Path) -> list[Sample]:
    """List the files in a folder and the folders below it, without the label file.

    Their names are relative to the folder of the label file.

    Raises:
        InputError: There are none.
    """
    # A file that is a link is one of its own: only the folder is resolved.
    inside = folder.resolve()
    files = [path for path in named_files.find([str(inside)]) if path.resolve() != labels.resolve()]
    if not files:
        raise InputError(f"no images in {folder}: name a folder that contains some")
    above = labels.parent.resolve()
    paths = [path.relative_to(above).as_posix() for path in files]
    return [_named(path, file) for path, file in zip(paths, files, strict=True)]


def _named(path: str, file: Path) -> Sample:
    """Name a file as a csv file can; without that, it cannot be used."""
    name = names.display(path)
    plain = name == path == path.strip()
    left_out = "" if plain else "its name has special characters or spaces at an end: rename it"
    return Sample(name, "", file=file, left_out=left_out)


def read(samples: Sequence[Sample], network: Network, cache: Store) -> Pool:
    """Read images and compute what is not stored yet; progress is shown.

    Raises:
        InputError: None of them can be read.
    """
    digests: dict[str, str] = {}
    bad: dict[str, str] = {}
    for sample in progress.bar(samples, "files", unit="file"):
        content = sample.left_out or image_file.or_reason(sample.read)
        if isinstance(content, str):
            bad[sample.path] = content
        else:
            digests[sample.path] = hashlib.sha256(content).hexdigest()
    outputs = by_image.stored(cache, network.key, list(digests.values()))
    first = {digests[sample.path]: sample for sample in samples if sample.path in digests}
    missing = [sample for digest, sample in first.items() if digest not in outputs]
    forward: Forward | None = None
    for rows, pixels, broken in _decoded(missing, network):
        bad |= broken
        if rows:
            fresh = [row.sha256 for row in rows]
            forward = forward or network.forward(pixels)
            batches = forward.batches(pixels, None)
            computed = by_image.keep(cache, network.key, fresh, network.width, batches)
            outputs |= dict(zip(fresh, computed, strict=True))
    used = [sample for sample in samples if digests.get(sample.path) in outputs]
    if not samples:
        raise InputError("no images: name a folder or a csv file that contains some")
    if not used:
        path, reason = next(iter(bad.items()))
        raise InputError(f"none of {len(samples)} files is an image: {path} is {reason}")
    copies = {
        path: "a copy of a file that is not an image"
        for path, digest in digests.items()
        if digest not in outputs
    }
    named = [digests[sample.path] for sample in used]
    return Pool(used, named, np.stack([outputs[digest] for digest in named]), {**copies, **bad})


def _decoded(
    samples: list[Sample], network: Network
) -> Iterator[tuple[list[Row], Pixels, dict[str, str]]]:
    """Decode images, some at a time: their rows and pixels, and why others are unusable."""
    rows: list[Row] = []
    pixels: list[Pixels] = []
    bad: dict[str, str] = {}
    if not samples:
        return
    judged = judge(samples, network.size_px, network.decoding, "features", total=len(samples))
    for row, verdict in judged:
        if isinstance(verdict, str):
            bad[row.path] = verdict
            continue
        rows.append(row)
        pixels.append(verdict.pixels)
        if len(rows) == _CHUNK:
            yield rows, np.stack(pixels), bad
            rows, pixels, bad = [], [], {}
    yield rows, np.stack(pixels) if pixels else np.zeros((0,), np.uint8), bad


def frozen_network(config: Config, samples: Sequence[Sample]) -> Network:
    """Describe the frozen backbone of a config, for images of a pool."""
    from pipeline.networks import engines, runtime

    runtime.configure(config.seed, config.threads)
    sides = backbones.sides(config.backbone)
    size = config.prepare.image_size
    if not isinstance(size, int):
        size = int(sizing.derive(iter(samples)).value)
        size = min(max(size, sides[0]), sides[1]) if sides else size
    frozen = config.frozen
    scalings, _ = backbones.scalings(frozen.backbone, size)
    if scalings:
        print(f"backbone.scale={scalings[0]}: the usual one; set it if the network needs another")
        frozen = replace(frozen, backbone=backbones.with_scale(frozen.backbone, scalings[0]))
    body = frozen.build(size)
    decoding = Decoding(config.prepare.fit, None, config.data.pages, config.data.max_megapixels)
    key = {
        "backbone": body.name,
        "cut": "its features",
        "image_size": size,
        "network": frozen.key(body),
        "decoding": asdict(decoding),
        **runtime.versions(),
    }

    def forward(images: Pixels) -> Forward:
        engine, batch_size = frozen.engine.resolved(), frozen.batch_size
        return engines.forward(
            body.model, engine, batch_size=batch_size, threads=frozen.threads, images=images
        )

    width = int(body.model.output_shape[-1])
    return Network(key, width, size, decoding, forward)
