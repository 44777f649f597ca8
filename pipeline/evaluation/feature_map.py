"""A map of images as a classifier sees them: alike ones lie together.

positions.npy + predictions.csv + images -> points in two dimensions, with thumbnails. Source:
van der Maaten and Hinton 2008, Visualizing Data using t-SNE.
"""

from __future__ import annotations

import base64
import colorsys
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps, colors
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.manifest import Manifest
from pipeline.evaluation import trust
from pipeline.storage import tables

MOST = 1000
"""Images shown: more lie on top of each other."""
THUMBNAIL_PX = 48
WIDTH, HEIGHT = 1000, 640

_MARGIN = 12
_TURN = 0.618034
"""Of the colour wheel from one class to the next: neighbours in the list look different."""


@dataclass(frozen=True)
class Point:
    """An image on the map.

    Attributes:
        x: From the left, in px of `WIDTH`.
        y: From the top, in px of `HEIGHT`.
        label: Its class.
        predicted: What the classifier says.
        known: Whether the classifier knows such images.
        path: As in the manifest.
    """

    x: float
    y: float
    label: str
    predicted: str
    known: bool
    path: str


@dataclass(frozen=True)
class FeatureMap:
    """The map.

    Attributes:
        points: Of the images shown.
        every: How many images there are.
        colors: Class -> colour, as CSS has it.
        thumbnails: JPEG in base64: those of the points in order, `columns` in a row.
        columns: Thumbnails in a row.
    """

    points: list[Point]
    every: int
    colors: dict[str, str]
    thumbnails: str
    columns: int


def draw(evaluated: Path, data: Manifest) -> FeatureMap:
    """Lay out the judged images.

    Args:
        evaluated: Output of evaluate.
        data: The prepared data set.
    """
    positions = np.load(evaluated / trust.POSITIONS)
    lines = tables.read_records(evaluated / "predictions.csv")
    chosen = np.sort(np.random.default_rng(0).permutation(len(lines))[:MOST])
    places = _placed(positions[chosen])
    rows = {row.path: place for place, row in enumerate(data.rows)}
    points = []
    for (x, y), place in zip(places, chosen, strict=True):
        line = lines[place]
        known = line["known"] == "yes"
        points.append(Point(x, y, line["label"], line["predicted"], known, line["path"]))
    columns = int(np.ceil(np.sqrt(len(points))))
    images = [data.images[rows[point.path]] for point in points]
    sheet = _sheet(images, columns)
    shown = _colors(data.classes)
    return FeatureMap(points, len(lines), shown, sheet, columns)


def _placed(positions: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, d) -> (N, 2) within the map."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(positions)
    if count > 3:
        perplexity = min(30.0, (count - 1) / 3)
        flat = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(positions)
    else:
        flat = np.zeros((count, 2))
        flat[:, : min(2, count)] = PCA(min(2, count)).fit_transform(positions)
    low, high = flat.min(axis=0), flat.max(axis=0)
    share = (flat - low) / np.maximum(high - low, 1e-12)
    room = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN
    placed: NDArray[np.float64] = np.round(_MARGIN + share * room, 1).astype(np.float64)
    return placed


def _sheet(images: list[NDArray[np.uint8]], columns: int) -> str:
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * THUMBNAIL_PX, rows * THUMBNAIL_PX), "white")
    for place, pixels in enumerate(images):
        small = Image.fromarray(pixels).resize((THUMBNAIL_PX, THUMBNAIL_PX))
        row, column = divmod(place, columns)
        sheet.paste(small, (column * THUMBNAIL_PX, row * THUMBNAIL_PX))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def _colors(classes: list[str]) -> dict[str, str]:
    if len(classes) <= 10:
        return {name: colors.to_hex(colormaps["tab10"](i)) for i, name in enumerate(classes)}
    wheel = ((i * _TURN % 1, 0.55 if i % 2 else 0.9, 0.9 if i % 3 else 0.65) for i in range(10**9))
    return {
        name: colors.to_hex(colorsys.hsv_to_rgb(*hsv))
        for name, hsv in zip(classes, wheel, strict=False)
    }
