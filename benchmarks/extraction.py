"""Extraction: this project's forward pass beside `model.predict` and other ways to run it.

python -m benchmarks.extraction [ROUNDS]

Pictures a second through the frozen MobileNetV2 and ResNet50 at 160 px, and what share of the
matrix products that the machine can do a second (float32, 2,048 square) that is.
"""

import time

import numpy as np

from benchmarks import side_by_side
from benchmarks.finetune import SIZE_PX, THREADS, calibrate, pictures

COUNTS = {"MobileNetV2": 384, "ResNet50": 128}
PREDICT = (16, 32, 64, 128)
WAYS = ("ours 16", "ours 32", "ours 64", *(f"predict {size}" for size in PREDICT))
OTHERS = ("one thread 32", "xla 32", "dataset 32")


def measure(name: str) -> side_by_side.Figures:
    network, _, way = name.partition(" ")
    kind, _, size = way.rpartition(" ")
    if network == "peak":
        return {"gflops": peak()}
    import tensorflow as tf

    from pipeline.networks import backbones, runtime
    from pipeline.networks.backbones import keras_application
    from pipeline.networks.keras_forward import KerasForward

    runtime.configure(0, 1 if kind == "one thread" else THREADS)
    images, _ = pictures(COUNTS[network])
    config = keras_application.Config(name=network, weights=None)
    model = backbones.build(config, SIZE_PX, 0).model
    calibrate(model, images[:32])
    batch = int(size)
    forward = KerasForward(model, batch)
    call = tf.function(lambda x: model(x, training=False), jit_compile=kind == "xla")

    def dataset() -> None:
        rows = tf.data.Dataset.from_tensor_slices(images).batch(batch).prefetch(2)
        for chosen in rows:
            call(tf.cast(chosen, tf.float32)).numpy()

    def xla() -> None:
        for start in range(0, len(images), batch):
            call(tf.constant(images[start : start + batch], tf.float32)).numpy()

    ways = {
        "ours": lambda: forward.all(images),
        "one thread": lambda: forward.all(images),
        "predict": lambda: model.predict(images, batch_size=batch, verbose=0),
        "dataset": dataset,
        "xla": xla,
    }
    ways[kind]()  # traces
    times = []
    for _ in range(3):
        started = time.perf_counter()
        ways[kind]()
        times.append(time.perf_counter() - started)
    return {"pictures_per_s": len(images) / float(np.median(times))}


def peak() -> float:
    """GFLOP a second of a float32 matrix product."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    a = tf.random.normal((2048, 2048))
    product = tf.function(tf.matmul)
    product(a, a).numpy()
    times = []
    for _ in range(20):
        started = time.perf_counter()
        product(a, a).numpy()
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / float(np.median(times)) / 1e9


def gflop(network: str) -> float:
    """Of one picture's convolutions and products."""
    import keras

    from pipeline.features import cuts
    from pipeline.networks import backbones
    from pipeline.networks.backbones import keras_application

    model = backbones.build(keras_application.Config(name=network, weights=None), SIZE_PX, 0).model
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    nodes = [node for node in cuts.graph.nodes(model) if isinstance(node.operation, kinds)]
    return sum(cuts._flops(node) for node in nodes) / 1e9


def main(rounds: int) -> None:
    ways = (*WAYS, *OTHERS)
    names = ["peak", *(f"{network} {way}" for network in COUNTS for way in ways)]
    found = side_by_side.in_turn("benchmarks.extraction", names, rounds)
    fastest = float(np.median([figures["gflops"] for figures in found["peak"]]))
    lines = [
        f"`python -m benchmarks.extraction {rounds}`: pictures a second at {SIZE_PX} px, median",
        f"(range) of {rounds} rounds. The machine's matrix products: {fastest:.0f} GFLOP a second.",
        "",
        "| way, batch size | " + " | ".join(f"{n} | share of peak" for n in COUNTS) + " |",
        "|---|" + "---|---|" * len(COUNTS),
    ]
    work = {network: gflop(network) for network in COUNTS}
    for way in ways:
        cells = []
        for network in COUNTS:
            rates = [figures["pictures_per_s"] for figures in found[f"{network} {way}"]]
            share = float(np.median(rates)) * work[network] / fastest
            cells += [side_by_side.middle(rates, ".0f"), f"{share:.0%}"]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    side_by_side.write("Extraction", "\n".join(lines))


if __name__ == "__main__":
    side_by_side.start("benchmarks.extraction", measure, main)
