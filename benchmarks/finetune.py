"""Fine-tuning from a cut: the Keras guide's recipe and this project's.

python -m benchmarks.finetune [ROUNDS]

160 px images, batches of 32, 2 threads, BatchNorm frozen, head of one layer. The plain
recipe has the whole backbone in the graph with the layers below the cut frozen, and calls
`fit`, as keras.io/guides/transfer_learning does. Ours trains on activations of the cut, with the
recipe of section `finetune`: AdamW, a rate by step and block, clipping, label smoothing. An
epoch is timed from the second on: the first one traces. The theory: with T the share of the
forward operations above the cut, an epoch costs 1 + 2 T plain and 3 T on activations.
One case is run as the guide has it, too, with tf.data's tuner on.
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

SIZE_PX, EPOCHS, BATCH, CLASSES, THREADS = 160, 4, 32, 5, 2
CASES = {
    "MobileNetV2 block_3": ("MobileNetV2", "block_3_expand", 512),
    "MobileNetV2 block_6": ("MobileNetV2", "block_6_expand", 512),
    "MobileNetV2 block_10": ("MobileNetV2", "block_10_expand", 512),
    "MobileNetV2 block_13": ("MobileNetV2", "block_13_expand", 512),
    "MobileNetV2 block_16": ("MobileNetV2", "block_16_expand", 512),
    "ResNet50 conv5_block2": ("ResNet50", "conv5_block2_1_conv", 256),
    "VGG16 block5": ("VGG16", "block5_conv1", 128),
    "EfficientNetV2B0 block6h": ("EfficientNetV2B0", "block6h_expand_conv", 512),
}
TUNED = "MobileNetV2 block_13"
SCALES = {"MobileNetV2": (1 / 127.5, -1.0)}


def drawn_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    return images, rng.integers(CLASSES, size=count)


def calibrate(network: Any, images: np.ndarray) -> None:
    """Give BatchNorm the statistics of images: fresh ones squash everything to denormals."""
    import keras

    norms = [item for item in network.layers if isinstance(item, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    network(images.astype(np.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def plain(name: str, cut: str, count: int, tuned: bool = False) -> float:
    """Seconds per epoch of the guide's recipe.

    At the end of each epoch `fit` waits for the next turn of tf.data's tuner, which sleeps
    twice as long each time: up to the epoch's length again. Off for a fair comparison.
    """
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    images, labels = drawn_images(count)
    base = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(SIZE_PX, SIZE_PX, 3)
    )
    scaled = keras.layers.Rescaling(*SCALES.get(name, (1.0, 0.0)))
    calibrate(base, np.asarray(scaled(images[:BATCH])))
    names = [layer.name for layer in base.layers]
    for layer in base.layers[: names.index(cut)]:
        layer.trainable = False
    for layer in base.layers:  # or `fit` moves their statistics: keras-team/keras 20285
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    entry = keras.Input((SIZE_PX, SIZE_PX, 3))
    x = keras.layers.GlobalAveragePooling2D()(base(scaled(entry), training=False))
    model = keras.Model(entry, keras.layers.Dense(CLASSES, activation="softmax")(x))
    model.compile(
        keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    ends = [time.perf_counter()]
    tick = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(count, seed=0)
    options = tf.data.Options()
    options.autotune.enabled = tuned
    dataset = dataset.batch(BATCH).prefetch(2).with_options(options)
    model.fit(dataset, epochs=EPOCHS, verbose=0, callbacks=[tick])
    return float(median(np.diff(ends)[1:]))


def ours(name: str, cut: str, count: int) -> float:
    """Seconds per epoch on the activations of the cut."""
    runtime.configure(0, THREADS)
    from pipeline.features import activations, cuts
    from pipeline.features.source import Source
    from pipeline.finetuning.settings import Config as Finetune
    from pipeline.networks import backbones, heads
    from pipeline.networks.backbones import keras_application
    from pipeline.training import fitting, steps
    from pipeline.training.examples import Examples

    images, labels = drawn_images(count)
    config = keras_application.Config(name=name, weights=None)
    body = backbones.build(config, SIZE_PX, 0)
    calibrate(body.model, images[:BATCH])
    head = heads.build(heads.Config(), body.model.output_shape[1], CLASSES)
    chosen = cuts.resolve(body.model, cut)
    cuts.freeze(body.model, chosen.trainable, False)
    _, upper = cuts.split(body.model, chosen.at)
    lasted: list[float] = []
    epoch = steps.train

    def timed(*arguments: Any) -> dict[str, float]:
        started = time.perf_counter()
        metrics = epoch(*arguments)
        lasted.append(time.perf_counter() - started)
        return metrics

    steps.train = timed
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Config(), Path(folder))
        source = Source(workshop.frozen(config, BATCH), body.model, "", images, "")
        kept = activations.below(store, source, chosen.at, np.arange(count))
        item = np.arange(1)
        above = heads.join(upper, head, "above")
        recipe = Finetune(learning_rate=1e-5, epochs=EPOCHS, batch_size=BATCH)
        fitting.fit(
            above,
            Examples(kept, np.arange(count), labels),
            Examples(kept, item, labels[:1]),
            recipe,
            fitting.Session(0, Path(folder) / "work", lambda *_: None),
        )
    return float(median(lasted[1:]))


def measure(name: str) -> side_by_side.Figures:
    recipe, _, case = name.partition(" ")
    if recipe == "tuned":
        return {"epoch_s": plain(*CASES[case], tuned=True)}
    if recipe == "possible":
        runtime.configure(0, THREADS)
        return {"ratio": possible(case)}
    return {"epoch_s": {"plain": plain, "ours": ours}[recipe](*CASES[case])}


def theory(case: str) -> float:
    """(1 + 2 T) / 3 T."""
    from pipeline.features import cuts
    from pipeline.networks import backbones
    from pipeline.networks.backbones import keras_application

    name, cut, _ = CASES[case]
    model = backbones.build(keras_application.Config(name=name, weights=None), SIZE_PX, 0).model
    at = cuts.resolve(model, cut).at
    (point,) = [point for point in cuts.describe(model) if point.name == at]
    above = 1 - point.flops_below
    return (1 + 2 * above) / (3 * above)


def possible(case: str) -> float:
    """Compute the ratio if a plain epoch were only the bare forward and training steps.

    On tensors that are there already, without Keras' loop, metrics and input pipeline: the
    gap to the theory is what the network's backward pass takes more than twice its forward.
    """
    import keras
    import tensorflow as tf

    from pipeline.features import cuts
    from pipeline.networks import backbones, heads
    from pipeline.networks.backbones import keras_application

    name, cut, _ = CASES[case]
    images, labels = drawn_images(BATCH)
    body = backbones.build(keras_application.Config(name=name, weights=None), SIZE_PX, 0)
    calibrate(body.model, images)
    chosen = cuts.resolve(body.model, cut)
    cuts.freeze(body.model, chosen.trainable, False)
    lower, upper = cuts.split(body.model, chosen.at)
    head = heads.build(heads.Config(), body.model.output_shape[1], CLASSES)
    model = heads.join(upper, head, "above")
    optimizer = keras.optimizers.Adam(1e-5)
    optimizer.build(model.trainable_variables)
    rows = tf.constant(images, tf.float32)
    wanted = tf.one_hot(labels, CLASSES)
    below = tf.function(lambda x: lower(x, training=False))
    middle = below(rows)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            losses = keras.losses.categorical_crossentropy(wanted, model(middle, training=True))
            loss = tf.reduce_mean(losses)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    def lasts(call: Any) -> float:
        call()
        times = []
        for _ in range(15):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        return float(median(times))

    upper_s = lasts(step)
    return (lasts(lambda: below(rows).numpy()) + upper_s) / upper_s


def main(rounds: int) -> None:
    names = [f"{way} {case}" for case in CASES for way in ("plain", "ours", "possible")]
    names.append(f"tuned {TUNED}")
    actual = side_by_side.in_turn("benchmarks.finetune", names, rounds)
    lines = [
        f"`python -m benchmarks.finetune {rounds}`: seconds per epoch, medians of {rounds} rounds.",
        "",
        "| network, cut | plain | pipeline | ratio, median (range) | theory | share | bare steps |",
        "|---|---|---|---|---|---|---|",
    ]
    runtime.configure(0, THREADS)
    for case in CASES:
        times = {
            recipe: median(figures["epoch_s"] for figures in actual[f"{recipe} {case}"])
            for recipe in ("plain", "ours")
        }
        gains = side_by_side.ratios(actual, f"plain {case}", f"ours {case}", "epoch_s")
        best = theory(case)
        bare = median(figures["ratio"] for figures in actual[f"possible {case}"])
        lines.append(
            f"| {case} | {times['plain']:.2f} | {times['ours']:.2f} "
            f"| {side_by_side.middle(gains)} | {best:.2f} | {median(gains) / best:.0%} "
            f"| {bare:.2f} |"
        )
    waited = [figures["epoch_s"] for figures in actual[f"tuned {TUNED}"]]
    lines += [
        "",
        "*Bare steps*: the ratio of forward and training steps on tensors that are there already,",
        "without Keras' loop: what these networks' backward passes allow on this machine.",
        "The plain recipe is run without tf.data's tuner, for whose next turn `fit` waits at the",
        f"end of every epoch; with it, {TUNED} takes {side_by_side.middle(waited)} s.",
    ]
    side_by_side.write("Fine-tuning", "\n".join(lines))


if __name__ == "__main__":
    side_by_side.start("benchmarks.finetune", measure, main)
