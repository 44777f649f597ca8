"""A sweep of 20 trials: the plain Optuna loop and this project's.

python -m benchmarks.sweep [ROUNDS]

5 cuts (the last 5 blocks) by 4 learning rates, 5 epochs each, no pruning; MobileNetV2 with its
ImageNet weights on photographs of ants and bees at 224 px. The plain loop is the Keras guide's
recipe inside an Optuna objective: it rebuilds the model in each trial, with the backbone in
the graph. Both begin with the decoded images and the trained head, after
`dvc repro train_head`, and see the images in the same order; the pipeline's is the command
`python -m pipeline sweep`, with one worker and with two, which also tracks and reports, and
tries head only as a 21st trial.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from benchmarks import side_by_side, workshop

CUTS = ("block_13_expand", "block_14_expand", "block_15_expand", "block_16_expand", "Conv_1")
RATES = (1e-6, 1e-5, 1e-4, 1e-3)
EPOCHS, BATCH, SIZE_PX = 5, 32, 224


def plain(data: Path, head: Path) -> dict[str, Any]:
    """The loop that people write; returns its best trial and the memory after each."""
    import keras
    import optuna
    import tensorflow as tf

    from pipeline.data.manifest import Manifest

    tf.config.threading.set_intra_op_parallelism_threads(2)
    manifest = Manifest(data)
    images, labels = manifest.images, manifest.targets
    train, val = manifest.indices("train"), manifest.indices("val")
    before = len((head / "history.csv").read_text().splitlines()) - 1
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    class Images(keras.utils.PyDataset):
        """Training images in the pipeline's order."""

        def __init__(self) -> None:
            super().__init__()
            self.shuffle(0)

        def shuffle(self, epoch: int) -> None:
            self.order = np.random.default_rng([0, before + epoch]).permutation(len(train))

        def __len__(self) -> int:
            return -(-len(train) // BATCH)

        def __getitem__(self, index: int) -> Any:
            rows = train[self.order[index * BATCH : (index + 1) * BATCH]]
            return images[rows].astype(np.float32), labels[rows]

    def objective(trial: optuna.Trial) -> float:
        cut = CUTS[trial.suggest_int("cut", 0, len(CUTS) - 1)]
        rate = trial.suggest_categorical("learning_rate", RATES)
        base = keras.applications.MobileNetV2(
            include_top=False,
            weights=str(workshop.SHARED / workshop.WEIGHTS),
            input_shape=(SIZE_PX, SIZE_PX, 3),
        )
        names = [layer.name for layer in base.layers]
        for number, layer in enumerate(base.layers):
            norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = number >= names.index(cut) and not norm
        top = keras.saving.load_model(head / "head.keras", compile=False)
        entry = keras.Input((SIZE_PX, SIZE_PX, 3))
        x = keras.layers.Rescaling(1 / 127.5, offset=-1)(entry)
        x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
        model = keras.Model(entry, top(x))
        model.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        held_out = (images[val].astype(np.float32), labels[val])
        start = model.evaluate(*held_out, batch_size=BATCH, verbose=0)[0]
        epochs = Images()
        shuffled = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, _: epochs.shuffle(epoch)
        )
        history = model.fit(
            epochs,
            validation_data=held_out,
            validation_batch_size=BATCH,
            epochs=EPOCHS,
            shuffle=False,  # Keras would shuffle the batches once more
            callbacks=[shuffled],
            verbose=0,
        ).history
        trial.set_user_attr("memory_mb", psutil.Process().memory_info().rss / 1e6)
        return float(min([start, *history["val_loss"]]))

    space = {"cut": list(range(len(CUTS))), "learning_rate": list(RATES)}
    study = optuna.create_study(sampler=optuna.samplers.GridSampler(space, seed=0))
    study.optimize(objective, n_trials=len(CUTS) * len(RATES))
    best = study.best_trial
    return {
        "trials": len(study.trials),
        "best": [CUTS[best.params["cut"]], best.params["learning_rate"], best.value],
        "memory_mb": [trial.user_attrs["memory_mb"] for trial in study.trials],
    }


def ours(folder: Path, workers: int) -> dict[str, Any]:
    """The command; memory is that of the worker that ran a trial, after it."""
    words = ["sweep.sampler=grid", "sweep.pruner=none", f"sweep.cuts=[{','.join(CUTS)}]"]
    words.append("~sweep.space.finetune.learning_rate")
    words.append(f"+sweep.space.finetune.learning_rate=[{','.join(map(repr, RATES))}]")
    words += [
        f"sweep.workers={workers}",
        "sweep.n_trials=21",
        f"finetune.epochs={EPOCHS}",
        f"finetune.patience={EPOCHS}",
        # Trial 0 is what params.yaml says: one of the 20 here, as in the plain loop, which also
        # averages no weights at its end.
        f"finetune.cut={CUTS[0]}",
        f"finetune.learning_rate={RATES[1]}",
        "sweep.soup=false",
    ]
    workshop.run(folder, sys.executable, "-m", "pipeline", "sweep", *words)
    import optuna

    storage = f"sqlite:///{folder / 'sweeps' / 'optuna.db'}"
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).get_trials()
    best = min(trials, key=lambda trial: trial.value or 0.0)
    settings = best.user_attrs["settings"]
    return {
        "trials": len(trials),
        "best": [settings["finetune.cut"], settings["finetune.learning_rate"], best.value],
        "memory_mb": [trial.user_attrs["memory_mb"] for trial in trials],
    }


def alone(folder: Path) -> dict[str, Any]:
    """The plain loop in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.sweep", "--plain"]
    outputs = [str(folder / "outputs" / "prepare"), str(folder / "outputs" / "train_head")]
    done = subprocess.run([*command, *outputs], capture_output=True, text=True, check=True)
    actual: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return actual


def main(rounds: int) -> None:
    measured: dict[str, Callable[[Path], dict[str, Any]]] = {
        "plain": alone,
        "pipeline, 1 worker": lambda folder: ours(folder, 1),
        "pipeline, 2 workers": lambda folder: ours(folder, 2),
    }
    actual: dict[str, list[dict[str, Any]]] = {name: [] for name in measured}
    for number in range(rounds):
        for name, measure in measured.items():
            with workshop.copy("hymenoptera_mobilenet_v2") as folder:
                workshop.real_weights(folder)
                workshop.run(folder, sys.executable, "-m", "dvc", "repro", "train_head")
                started = time.perf_counter()
                result = measure(folder)
                actual[name].append({**result, "seconds": time.perf_counter() - started})
            print(f"round {number + 1}: {name} {actual[name][-1]}", file=sys.stderr)
    lines = [
        f"`python -m benchmarks.sweep {rounds}`: 5 cuts by 4 learning rates, 5 epochs, MobileNetV2",
        "at 224 px, 179 images for training and 52 for validation. All begin with decoded",
        "images and a trained head, and end with the best trial; plain rebuilds the model in",
        "each trial, the pipeline's is the whole command.",
        "",
        f"| rounds: {rounds} | {' | '.join(actual)} |",
        f"|---|{'---|' * len(actual)}",
    ]
    cells = [side_by_side.middle([item["seconds"] for item in of], ".0f") for of in actual.values()]
    lines.append(f"| seconds | {' | '.join(cells)} |")
    gains = {
        name: side_by_side.ratios(actual, "plain", name, "seconds") for name in list(measured)[1:]
    }
    cells = [side_by_side.middle(of, ".1f") for of in gains.values()]
    lines.append(f"| speed-up | 1 | {' | '.join(cells)} |")
    for count in (5, 10, 15, 20):
        cells = [
            f"{median(item['memory_mb'][count - 1] for item in of):.0f}" for of in actual.values()
        ]
        lines.append(f"| memory after {count} trials, MB | {' | '.join(cells)} |")
    bests = [of[-1]["best"] for of in actual.values()]
    cells = [f"{cut}, {rate:g}, {loss:.5f}" for cut, rate, loss in bests]
    lines.append(f"| best: cut, learning rate, validation loss | {' | '.join(cells)} |")
    side_by_side.write("Sweep", "\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        print(json.dumps(plain(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
