"""A map of images in the classifier's feature space: similar images are close together.

positions.npy + predictions.csv + images -> points in two dimensions, with thumbnails. Source: van
der Maaten and Hinton 2008, Visualizing Data using t-SNE.
"""

from __future__ import annotations

import base64
import colorsys
import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, colors
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.manifest import Manifest
from pipeline.evaluation import trust
from pipeline.storage import tables

MAX_POINTS = 1000
"""Maximum number of images on the map: more would overlap."""
THUMBNAIL_PX = 48
WIDTH, HEIGHT = 1000, 640

_ITERATIONS = 500
_MARGIN = 12
_TURN = 0.618034
"""Step on the colour wheel from one class to the next: neighbours look different."""


def draw(evaluated: Path, data: Manifest) -> dict[str, Any]:
    """Lay out the evaluated images, from the output of evaluate.

    Returns:
        points (the images shown, with positions in px of `WIDTH` and `HEIGHT`), total (number of
        all images), colors (class -> CSS colour), thumbnails (of the points in order, JPEG in
        base64), columns (thumbnails per row).
    """
    positions = np.load(evaluated / trust.POSITIONS)
    lines = tables.read_records(evaluated / "predictions.csv")
    chosen = np.sort(np.random.default_rng(0).permutation(len(lines))[:MAX_POINTS])
    places = _placed(positions[chosen])
    rows = {row.path: place for place, row in enumerate(data.rows)}
    drawn = [lines[place] for place in chosen]
    texts = [line[column] for column in ("label", "prediction") for line in drawn]
    kinds = data.task.strata(texts)
    points = [
        {
            **{"x": x, "y": y, "label": kinds[n], "prediction": kinds[n + len(drawn)]},
            **{"known": line["known"] == "yes", "path": line["path"]},
        }
        for n, ((x, y), line) in enumerate(zip(places, drawn, strict=True))
    ]
    columns = int(np.ceil(np.sqrt(len(points))))
    inner = set(kinds) <= set(data.classes)
    return {
        "points": points,
        "total": len(lines),
        "colors": _colors(data.classes if inner else sorted(set(kinds))),
        "thumbnails": _sheet([data.images[rows[line["path"]]] for line in drawn], columns),
        "columns": columns,
    }


def _placed(positions: NDArray[np.float32]) -> NDArray[np.float64]:
    """Reduce (N, d) to (N, 2) positions on the map."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(positions)
    if count > 3:
        perplexity = min(30.0, (count - 1) / 3)
        layout = TSNE(2, perplexity=perplexity, init="pca", max_iter=_ITERATIONS, random_state=0)
        flat = layout.fit_transform(positions)
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
