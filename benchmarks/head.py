"""Head training: the Keras guide's recipe beside this project's, process by process in turn.

python -m benchmarks.head [ROUNDS]

1,000 pictures of 160 px for training and 200 for validation, MobileNetV2, a head of one
hidden layer, 10 epochs, batches of 32, 2 threads. The plain recipe has the frozen backbone in
the graph and calls `fit`; ours extracts features once and trains on these. Pictures and
weights are random: they cost the same. Start-up of TensorFlow is counted in neither.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from pipeline import runtime

TRAIN, VAL, SIZE_PX, EPOCHS, BATCH, CLASSES = 1000, 200, 160, 10, 32, 5


def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (TRAIN + VAL, SIZE_PX, SIZE_PX, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    return images, rng.integers(CLASSES, size=TRAIN + VAL)


def plain() -> dict[str, float]:
    """The recipe of keras.io/guides/transfer_learning."""
    import keras

    images, labels = pictures()
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
    model.fit(
        images[:TRAIN],
        labels[:TRAIN],
        validation_data=(images[TRAIN:], labels[TRAIN:]),
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[tick],
    )
    return {"epoch_s": median(np.diff(ends)[1:]), "total_s": ends[-1] - ends[0]}


def ours() -> dict[str, float]:
    """Features once, then the head on them."""
    from pipeline import activations, backbones, fitting, heads
    from pipeline.backbones import keras_application
    from pipeline.examples import Examples
    from pipeline.training import Training

    images, labels = pictures()
    config = keras_application.Config(name="MobileNetV2", weights=None)
    body = backbones.build(config, SIZE_PX, 0)
    head = heads.build(heads.Config(units=[128], dropout=0.2), body.model.output_shape[1], CLASSES)
    ends = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        store = activations.Store(activations.Config(), Path(folder))
        source = activations.Source(body.model, images, BATCH, 2, "", "")
        last = body.model.layers[-1].name
        features = activations.below(store, source, last, np.arange(len(images)))
        extracted = time.perf_counter()
        fitting.fit(
            head,
            Examples(features, np.arange(TRAIN), labels[:TRAIN]),
            Examples(features, np.arange(TRAIN, TRAIN + VAL), labels[TRAIN:]),
            Training(epochs=EPOCHS, patience=EPOCHS, batch_size=BATCH),
            seed=0,
            work=Path(folder) / "work",
            log=lambda *_: ends.append(time.perf_counter()),
        )
    total = time.perf_counter() - ends[0]
    rate = len(images) / (extracted - ends[0])
    return {"epoch_s": median(np.diff(ends)[1:]), "total_s": total, "pictures_per_s": rate}


def main() -> None:
    if sys.argv[1:] in (["plain"], ["ours"]):
        runtime.configure(0, 2)
        print(json.dumps({"plain": plain, "ours": ours}[sys.argv[1]]()))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
    for _ in range(rounds):
        for name, results in found.items():
            command = [sys.executable, "-m", "benchmarks.head", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"| {rounds} rounds | plain | ours | ratio, median (range) |\n|---|---|---|---|")
    for key, label in (("epoch_s", "an epoch"), ("total_s", "all of it")):
        both = {name: [result[key] for result in results] for name, results in found.items()}
        ratios = [a / b for a, b in zip(both["plain"], both["ours"], strict=True)]
        print(
            f"| {label} | {median(both['plain']):.2f} s | {median(both['ours']):.3f} s "
            f"| {median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f}) |"
        )
    print(
        f"\nextraction: {median(r['pictures_per_s'] for r in found['ours']):.0f} pictures a second"
    )


if __name__ == "__main__":
    main()
