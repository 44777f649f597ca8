"""Regenerate the weights of glyph_cnn, bit for bit.

python -m benchmarks.pretrain [LETTERS EPOCHS PATH]

Trains the network on rendered letters: A-Z and a-z in the fonts that matplotlib ships.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from pipeline.data.image_file import Pixels
from pipeline.networks import runtime
from pipeline.networks.backbones import glyph_cnn
from pipeline.storage.digests import file_sha256
from pipeline.storage.outputs import replacing_file

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIZE_PX = 8
_CANVAS_PX = 64
_FONT_PX = 44
_CELLS = 4
_SEED, _THREADS = 0, 2
_BATCH, _RATE = 64, 2e-3


def pretrain(count: int, epochs: int, path: Path) -> None:
    """Render, train, write the weights; prints the accuracy on letters that were held out."""
    runtime.configure(_SEED, _THREADS)
    import keras

    rng = np.random.default_rng(_SEED)
    fonts = _fonts()
    labels = rng.integers(len(LETTERS), size=count)
    bar = tqdm(labels, desc="render", unit="letter", disable=None)
    images = np.stack([letter(LETTERS[label], rng, fonts) for label in bar])
    rgb = np.repeat(images[..., None], 3, axis=-1)
    held_out = count // 10
    backbone = glyph_cnn.network(SIZE_PX)
    classes = keras.layers.Dense(len(LETTERS), activation="softmax")
    model = keras.Sequential([backbone, keras.layers.Dropout(0.2, seed=_SEED), classes])
    steps = -(-(count - held_out) // _BATCH) * epochs
    schedule = keras.optimizers.schedules.CosineDecay(_RATE, steps)
    model.compile(
        keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    history = model.fit(
        rgb[held_out:],
        labels[held_out:],
        validation_data=(rgb[:held_out], labels[:held_out]),
        batch_size=_BATCH,
        epochs=epochs,
        verbose=2,
    )
    with replacing_file(path) as aside:
        backbone.save_weights(aside)
    accuracy = history.history["val_accuracy"][-1]
    print(f"{path} sha256 {file_sha256(path)}, accuracy on held-out letters {accuracy:.3f}")


def letter(char: str, rng: np.random.Generator, fonts: list[ImageFont.FreeTypeFont]) -> Pixels:
    """Render one letter, bright on black, as tall as written digits are, distorted.

    Returns:
        (8, 8) uint8.
    """
    font = fonts[rng.integers(len(fonts))]
    canvas = Image.new("L", (_CANVAS_PX, _CANVAS_PX))
    centre = (_CANVAS_PX / 2, _CANVAS_PX / 2)
    stroke = int(rng.integers(4))
    ImageDraw.Draw(canvas).text(centre, char, 255, font, anchor="mm", stroke_width=stroke)
    canvas = _stretched(canvas.crop(canvas.getbbox()), rng)
    for transform, data in (
        (Image.Transform.AFFINE, _affine(rng)),
        (Image.Transform.MESH, _warp(rng)),
    ):
        canvas = canvas.transform(canvas.size, transform, data, Image.Resampling.BILINEAR)
    small = canvas.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX)
    ink = np.asarray(small, dtype=np.float64) * rng.uniform(0.8, 1.4)
    return np.clip(np.round(ink), 0, 255).astype(np.uint8)


def _stretched(glyph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The glyph in the middle of the canvas, at the height of a written digit."""
    height = int(rng.integers(50, 60))
    width = round(glyph.width * height / glyph.height * rng.uniform(0.7, 1.1))
    glyph = glyph.resize((max(1, min(width, 60)), height), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (_CANVAS_PX, _CANVAS_PX))
    canvas.paste(glyph, ((_CANVAS_PX - glyph.width) // 2, (_CANVAS_PX - height) // 2))
    return canvas


def _affine(rng: np.random.Generator) -> tuple[float, ...]:
    """Output -> input coordinates: rotation, shear, scale and shift about the centre."""
    angle, shear = rng.normal(0, 0.15), rng.normal(0, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix: NDArray[np.float64] = turn @ np.array([[1, shear], [0, 1]]) / rng.uniform(0.85, 1.1, 2)
    centre = np.full(2, _CANVAS_PX / 2)
    shift = centre - matrix @ (centre + rng.normal(0, 2, 2))
    return (*matrix[0], shift[0], *matrix[1], shift[1])


def _warp(rng: np.random.Generator) -> list[tuple[tuple[int, ...], list[float]]]:
    """A mesh of cells whose corners are shifted at random, as handwriting wavers."""
    cell = _CANVAS_PX // _CELLS
    shift = rng.normal(0, 3, (_CELLS + 1, _CELLS + 1, 2))

    def corner(column: int, row: int) -> list[float]:
        dx, dy = shift[row, column]
        return [column * cell + dx, row * cell + dy]

    mesh: list[tuple[tuple[int, ...], list[float]]] = []
    for row, column in np.ndindex(_CELLS, _CELLS):
        box = (column * cell, row * cell, (column + 1) * cell, (row + 1) * cell)
        left, right = (column, row), (column + 1, row)
        below_left, below_right = (column, row + 1), (column + 1, row + 1)
        corners = [corner(*place) for place in (left, below_left, below_right, right)]
        mesh.append((box, [number for pair in corners for number in pair]))
    return mesh


def _fonts() -> list[ImageFont.FreeTypeFont]:
    """Matplotlib's fonts that have letters where ASCII has them, sorted by name."""
    return [ImageFont.truetype(str(path), _FONT_PX) for path in sorted(_font_files())]


def _font_files() -> Iterator[Path]:
    import matplotlib as mpl

    for path in (Path(mpl.get_data_path()) / "fonts" / "ttf").glob("*.ttf"):
        # The maths and display fonts hold other signs, or nothing, where letters should be.
        others = ("cmex", "cmsy", "STIXSiz", "STIXNonUni", "LastResort")
        if not path.stem.startswith(others) and not path.stem.endswith("Display"):
            yield path


if __name__ == "__main__":
    letters, epochs, target = (*sys.argv[1:], 36000, 10, glyph_cnn.WEIGHTS)[:3]
    pretrain(int(letters), int(epochs), Path(target))
