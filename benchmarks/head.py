"""Head training: the Keras guide's recipe and this project's, alternating.

python -m benchmarks.head [ROUNDS]

1,000 images of 160 px for training and 200 for validation, MobileNetV2, a head of one
hidden layer, 10 epochs, batches of 32, 2 threads. The plain recipe has the frozen backbone in
the graph and calls `fit`, once as it is and once without tf.data's tuner; the pipeline extracts
features once and trains on these. Images and weights are random: they cost the same.
Start-up of TensorFlow is counted in none.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import side_by_side, workshop
from pipeline.features.store import Config, Store
from pipeline.networks import runtime

TRAIN, VAL, SIZE_PX, EPOCHS, BATCH, CLASSES = 1000, 200, 160, 10, 32, 5


def drawn_images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (TRAIN + VAL, SIZE_PX, SIZE_PX, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    return images, rng.integers(CLASSES, size=TRAIN + VAL)


def plain(tuned: bool) -> side_by_side.Figures:
    """The recipe of keras.io/guides/transfer_learning."""
    import keras
    import tensorflow as tf

    images, labels = drawn_images()
    base = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(SIZE_PX, SIZE_PX, 3)
    )
    base.trainable = False
    entry = keras.Input((SIZE_PX, SIZE_PX, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(entry)
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    x = keras.layers.Dense(128, activation="relu")(x)
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(entry, keras.layers.Dense(CLASSES, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    ends = [time.perf_counter()]
    tick = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))

    def dataset(rows: slice) -> Any:
        options = tf.data.Options()
        options.autotune.enabled = tuned
        made = tf.data.Dataset.from_tensor_slices((images[rows], labels[rows]))
        return made.batch(BATCH).prefetch(2).with_options(options)

    model.fit(
        dataset(slice(TRAIN)),
        validation_data=dataset(slice(TRAIN, None)),
        epochs=EPOCHS,
        verbose=0,
        callbacks=[tick],
    )
    return {"epoch_s": float(median(np.diff(ends)[1:])), "total_s": ends[-1] - ends[0]}


def ours() -> side_by_side.Figures:
    """Features once, then the head on them."""
    from pipeline.features import activations
    from pipeline.features.source import Source
    from pipeline.networks import backbones, heads
    from pipeline.networks.backbones import keras_application
    from pipeline.training import fitting
    from pipeline.training.examples import Examples
    from pipeline.training.settings import Training

    images, labels = drawn_images()
    config = keras_application.Config(name="MobileNetV2", weights=None)
    body = backbones.build(config, SIZE_PX, 0)
    head = heads.build(heads.Config(units=[128], dropout=0.2), body.model.output_shape[1], CLASSES)
    ends = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Config(), Path(folder))
        frozen = workshop.frozen(config, BATCH)
        source = Source(frozen, body.model, "", images, "")
        last = body.model.layers[-1].name
        features = activations.below(store, source, last, np.arange(len(images)))
        extracted = time.perf_counter()
        fitting.fit(
            head,
            Examples(features, np.arange(TRAIN), labels[:TRAIN]),
            Examples(features, np.arange(TRAIN, TRAIN + VAL), labels[TRAIN:]),
            Training(epochs=EPOCHS, patience=EPOCHS, batch_size=BATCH),
            fitting.Session(0, Path(folder) / "work", lambda *_: ends.append(time.perf_counter())),
        )
    total = time.perf_counter() - ends[0]
    rate = len(images) / (extracted - ends[0])
    epoch = float(median(np.diff(ends)[1:]))
    return {"epoch_s": epoch, "total_s": total, "images_per_s": rate}


def measure(name: str) -> side_by_side.Figures:
    runtime.configure(0, 2)
    return ours() if name == "pipeline" else plain(tuned=name == "plain")


def main(rounds: int) -> None:
    names = ["plain", "plain, no tuner", "pipeline"]
    actual = side_by_side.in_turn("benchmarks.head", names, rounds)
    lines = [
        f"`python -m benchmarks.head {rounds}`: 1,000 images of 160 px and 200 for validation,",
        "MobileNetV2, 10 epochs; seconds (medians) and speed-ups.",
        "",
        f"| rounds: {rounds} | {' | '.join(names)} | over plain | over plain, no tuner |",
        "|---|---|---|---|---|---|",
    ]
    for key, label in (("epoch_s", "one epoch"), ("total_s", "everything, with extraction")):
        cells = [f"{median(figures[key] for figures in actual[name]):.3f}" for name in names]
        for other in names[:2]:
            cells.append(
                side_by_side.middle(side_by_side.ratios(actual, other, "pipeline", key), ".1f")
            )
        lines.append(f"| {label} | {' | '.join(cells)} |")
    rates = [figures["images_per_s"] for figures in actual["pipeline"]]
    lines += ["", f"Extraction: {side_by_side.middle(rates, '.0f')} images per second."]
    side_by_side.write("Head training", "\n".join(lines))


if __name__ == "__main__":
    side_by_side.start("benchmarks.head", measure, main)
