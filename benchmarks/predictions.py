"""A model's correct test images, and its log loss at the temperature that suits validation best.

python -m benchmarks.predictions head|model|rival: outputs -> judged.json.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from pipeline.data.manifest import Manifest
from pipeline.data.tasks import calibration
from pipeline.networks import model_file, runtime
from pipeline.networks.keras_forward import KerasForward

OUTPUTS = Path("outputs")
RIVAL = Path("rival.npy")
"""(N, K) probabilities of all images, as written by another system."""


def main(which: str) -> None:
    runtime.configure(0, 2)
    data = Manifest(OUTPUTS / "prepare")
    if which == "head":
        head = keras.saving.load_model(OUTPUTS / "train_head/head.keras", compile=False)
        features = np.load(OUTPUTS / "extract_features/features.npy")
        probabilities = KerasForward(head, 32).all(features)
    elif which == "model":
        model, card = model_file.load(OUTPUTS / "finetune/model.keras", allow_code=True)
        probabilities = KerasForward(model, card.batch_size).all(data.images)
    else:
        probabilities = np.load(RIVAL)
    val, test = data.indices("val"), data.indices("test")
    temperature = calibration.temperature(data.targets[val], probabilities[val])
    right = probabilities[test].argmax(axis=1) == data.targets[test]
    losses = calibration.log_losses(data.targets[test], probabilities[test], temperature)
    actual = {
        "losses": dict(zip([data.rows[row].path for row in test], losses.tolist(), strict=True)),
        "right": {data.rows[row].path: bool(item) for row, item in zip(test, right, strict=True)},
        "log_loss": calibration.log_loss(data.targets[test], probabilities[test], temperature),
    }
    Path("judged.json").write_text(json.dumps(actual))


if __name__ == "__main__":
    main(sys.argv[1])
