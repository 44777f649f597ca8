"""Extraction: the engines side by side with `model.predict`.

python -m benchmarks.extraction [ROUNDS]

Images per second through four frozen networks at 224 px. Weights are random, BatchNorm has the
statistics of the images; the difference to Keras is that of features, length by length.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import side_by_side
from benchmarks.finetune import THREADS, calibrate

SIZE_PX = 224
COUNTS = {"MobileNetV2": 256, "EfficientNetV2B0": 192, "ResNet50": 96, "VGG16": 48}
PREDICT = (16, 32, 64)
WAYS = (
    *(f"predict {size}" for size in PREDICT),
    "keras float32",
    "openvino float32",
    "openvino bfloat16",
)


def measure(name: str) -> side_by_side.Figures:
    import keras

    from pipeline.networks import backbones, engines, runtime
    from pipeline.networks.backbones import keras_application
    from pipeline.networks.keras_forward import KerasForward

    network, kind, how = name.split(" ")
    runtime.configure(0, THREADS)
    coarse = np.random.default_rng(0).integers(0, 256, (COUNTS[network], 28, 28, 3))
    images = coarse.astype(np.uint8).repeat(8, 1).repeat(8, 2)
    config = keras_application.Config(name=network, weights=None)
    model: keras.Model = backbones.build(config, SIZE_PX, 0).model
    calibrate(model, images[:32])
    if kind == "predict":
        rate = rate_of(lambda: model.predict(images, batch_size=int(how), verbose=0), images)
        return {"images_per_s": rate}
    chosen = engines.Config(engines.Engine(kind), engines.Precision(how))
    started = time.perf_counter()
    forward = engines.forward(model, chosen, batch_size=32, threads=THREADS, images=images)
    made_s = time.perf_counter() - started
    expected = KerasForward(model, 32).all(images[:32])
    apart = np.linalg.norm(forward.all(images[:32]) - expected) / np.linalg.norm(expected)
    rate = rate_of(lambda: forward.all(images), images)
    return {"images_per_s": rate, "apart": float(apart), "made_s": made_s}


def rate_of(run: Callable[[], Any], images: np.ndarray) -> float:
    """Images per second: the median of three passes after one that prepares."""
    run()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return len(images) / float(np.median(times))


def main(rounds: int) -> None:
    names = [f"{network} {way}" for network in COUNTS for way in WAYS]
    actual = side_by_side.in_turn("benchmarks.extraction", names, rounds)
    lines = [
        f"`python -m benchmarks.extraction {rounds}`: images per second at {SIZE_PX} px on",
        f"{THREADS} threads, median (range) of {rounds} rounds; times `model.predict` at its best",
        "batch size; difference to Keras; seconds to convert and check.",
        "",
        "| way | " + " | ".join(COUNTS) + " |",
        "|---|" + "---|" * len(COUNTS),
    ]
    for way in WAYS:
        cells = []
        for network in COUNTS:
            figures = actual[f"{network} {way}"]
            rates = [item["images_per_s"] for item in figures]
            cell = side_by_side.middle(rates, ".1f")
            if not way.startswith("predict"):
                best = np.max(
                    [
                        [item["images_per_s"] for item in actual[f"{network} predict {size}"]]
                        for size in PREDICT
                    ],
                    axis=0,
                )
                cell += f"; {np.median(np.array(rates) / best):.2f} times"
                cell += f"; {figures[0]['apart']:.0e}; {figures[0]['made_s']:.1f} s"
            cells.append(cell)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    side_by_side.write("Extraction", "\n".join(lines))


if __name__ == "__main__":
    side_by_side.start("benchmarks.extraction", measure, main)
