"""PyTorch's training step beside this project's.

python -m benchmarks.peers TORCH_PYTHON [ROUNDS]

TORCH_PYTHON is an interpreter with the packages of benchmarks/torch.txt. MobileNetV2 at 224 px,
batches of 32, from its fourth block on, 2 threads; both sides in turn. Whole recipes are compared
by benchmarks.frontier.
"""

import json
import subprocess
import sys
import time

import numpy as np

from benchmarks import side_by_side, workshop

SIZE_PX, BATCH, STEPS, WARM = 224, 32, 12, 3
SCRIPT = workshop.PROJECT / "benchmarks/torch_peer.py"


def own_step() -> dict[str, float]:
    """Images per second of this project's training step on activations."""
    from pipeline.networks import runtime

    runtime.configure(0, 2)
    import keras

    from pipeline.features import cuts
    from pipeline.finetuning.settings import Config
    from pipeline.networks import heads
    from pipeline.training import optimizer, steps

    body = keras.applications.MobileNetV2(
        include_top=False, weights=None, pooling="avg", input_shape=(SIZE_PX, SIZE_PX, 3)
    )
    cut = cuts.resolve(body, "block_4_expand")
    cuts.freeze(body, cut.trainable, batch_norm=False)
    lower, upper = cuts.split(body, cut.at)
    head = keras.Sequential([keras.Input((1280,)), keras.layers.Dense(2, activation="softmax")])
    model = heads.join(upper, head, "above_the_cut")
    optimizer.prepare(model, Config(learning_rate=3e-4, epochs=1))
    rng = np.random.default_rng(0)
    images = rng.random((BATCH, SIZE_PX, SIZE_PX, 3), np.float32)
    activations = np.asarray(lower(images))
    labels = np.eye(2, dtype=np.float32)[rng.integers(2, size=BATCH)]

    def run(count: int) -> None:
        steps.train(model, [(activations, labels)] * count, [3e-4] * count)

    run(WARM)
    began = time.perf_counter()
    run(STEPS)
    return {"on activations": STEPS * BATCH / (time.perf_counter() - began)}


def of_torch(python: str, *words: str) -> dict[str, float]:
    done = subprocess.run([python, str(SCRIPT), *words], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(python: str, rounds: int) -> None:
    own, torch = [], []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.peers", "--step"],
            capture_output=True,
            text=True,
            check=True,
        )
        own.append(json.loads(done.stdout.splitlines()[-1]))
        torch.append(of_torch(python, "step", str(SIZE_PX), str(BATCH)))
        print(own[-1], torch[-1], file=sys.stderr)
    rates = side_by_side.middle([item["on activations"] for item in own], ".0f")
    lines = [
        f"`python -m benchmarks.peers TORCH_PYTHON {rounds}`: images per second of a",
        "training step of MobileNetV2 above block 4, 224 px, batches of 32, 2 threads.",
        "",
        "| | images/s |",
        "|---|---|",
        f"| the pipeline | {rates} |",
    ]
    for way in torch[0]:
        rates = side_by_side.middle([item[way] for item in torch], ".0f")
        lines.append(f"| PyTorch, {way} | {rates} |")
    side_by_side.write("PyTorch", "\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1] == "--step":
        print(json.dumps(own_step()))
    else:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3)
