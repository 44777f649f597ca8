"""The training loop: Keras' `fit` and `evaluate` and their steps called one by one.

python -m benchmarks.training_loop [ROUNDS]

Seconds per epoch, validation included, of a head on features of 1,000 images and of
MobileNetV2 above block_16 on activations of 256, both in batches of 32. `fit` is given tensors
that are there already, without tf.data's tuner.
"""

import time
from statistics import median
from typing import Any

import numpy as np

from benchmarks import side_by_side
from pipeline.networks import runtime

CASES = {"head": 1000, "block_16": 256}
VAL, EPOCHS, BATCH, CLASSES = 100, 12, 32, 5


def network(case: str) -> Any:
    """Build the trained network: (B, ...) -> (B, K)."""
    from pipeline.features import cuts
    from pipeline.networks import backbones, heads
    from pipeline.networks.backbones import keras_application

    body = backbones.build(keras_application.Config(name="MobileNetV2", weights=None), 160, 0).model
    head = heads.build(heads.Config(), body.output_shape[1], CLASSES)
    if case == "head":
        return head
    cut = cuts.resolve(body, "block_16_expand")
    cuts.freeze(body, cut.trainable, False)
    return heads.join(cuts.split(body, cut.at)[1], head, "above")


def measure(name: str) -> side_by_side.Figures:
    runtime.configure(0, 2)
    import keras
    import tensorflow as tf

    from pipeline.training import steps
    from pipeline.training.examples import Examples, batches

    way, _, case = name.partition(" ")
    model = network(case)
    model.compile(keras.optimizers.Adam(1e-5), "categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    count = CASES[case] + VAL
    inputs = rng.random((count, *model.input_shape[1:]), dtype=np.float32)
    labels = rng.integers(CLASSES, size=count)
    splits = [np.arange(CASES[case]), np.arange(CASES[case], count)]
    # Builds metrics and optimizer, and costs both ways the same.
    model.train_on_batch(inputs[:BATCH], np.eye(CLASSES)[labels[:BATCH]])
    model.train_function = None

    def dataset(rows: np.ndarray) -> Any:
        options = tf.data.Options()
        options.autotune.enabled = False
        made = tf.data.Dataset.from_tensor_slices((inputs[rows], np.eye(CLASSES)[labels[rows]]))
        return made.batch(BATCH).prefetch(2).with_options(options)

    def of_keras() -> None:
        model.fit(parts[0], verbose=0)
        model.evaluate(parts[1], verbose=0)

    def step_by_step() -> None:
        train, val = (Examples(inputs, rows, labels) for rows in splits)
        parts = batches(train, np.arange(len(splits[0])), CLASSES, BATCH)
        steps.train(model, parts, [1e-5] * -(-len(splits[0]) // BATCH))
        steps.probabilities(model, val, BATCH)

    parts = [dataset(rows) for rows in splits]
    epoch = of_keras if way == "fit" else step_by_step
    times = []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        epoch()
        times.append(time.perf_counter() - started)
    return {"epoch_s": float(median(times[1:]))}


def main(rounds: int) -> None:
    names = [f"{way} {case}" for case in CASES for way in ("fit", "steps")]
    actual = side_by_side.in_turn("benchmarks.training_loop", names, rounds)
    lines = [
        f"`python -m benchmarks.training_loop {rounds}`: seconds per epoch, with validation.",
        "",
        "| | `fit` and `evaluate` | their steps | ratio, median (range) |",
        "|---|---|---|---|",
    ]
    labels = {"head": "a head, 1,000 images", "block_16": "from block_16, 256 images"}
    for case, label in labels.items():
        cells = [
            f"{median(figures['epoch_s'] for figures in actual[f'{way} {case}']):.3f}"
            for way in ("fit", "steps")
        ]
        gain = side_by_side.ratios(actual, f"fit {case}", f"steps {case}", "epoch_s")
        lines.append(f"| {label} | {' | '.join(cells)} | {side_by_side.middle(gain)} |")
    side_by_side.write("Training loop", "\n".join(lines))


if __name__ == "__main__":
    side_by_side.start("benchmarks.training_loop", measure, main)
