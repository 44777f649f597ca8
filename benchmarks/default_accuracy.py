"""Test accuracy of the default task over seeds, with raw pixels and an untrained network.

python -m benchmarks.default_accuracy [SEEDS]

Each seed draws other images for training: 20 a class, 20 for validation, the rest for test.
"""

import json
import sys
from pathlib import Path
from statistics import median

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import workshop
from pipeline.data.manifest import Manifest


def accuracies(seed: int, folder: Path) -> dict[str, float]:
    """By model, in a copy of the project."""

    def stage(name: str, *words: str) -> Path:
        own = (f"seed={seed}", "tracking.enabled=false", *words)
        workshop.run(folder, sys.executable, "-m", "pipeline", name, *own)
        return folder / "outputs" / name

    data = Manifest(stage("prepare"))
    actual = {"raw pixels": linear(data.images.reshape(len(data.images), -1), data)}
    untrained = stage("extract_features", "backbone.weights=null")
    actual["untrained backbone"] = linear(np.load(untrained / "features.npy"), data)
    for name in ("extract_features", "train_head", "finetune"):
        stage(name)
    metrics = json.loads((stage("evaluate") / "metrics.json").read_text())
    actual["head only"] = metrics["head_only"]["accuracy"]
    actual["fine-tuned"] = metrics["fine_tuned"]["accuracy"]
    return actual


def linear(inputs: np.ndarray, data: Manifest) -> float:
    """Test accuracy of a logistic regression."""
    train, test = data.indices("train"), data.indices("test")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    model.fit(inputs[train], data.targets[train])
    return float(model.score(inputs[test], data.targets[test]))


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    with workshop.copy() as folder:
        results = [accuracies(seed, folder) for seed in seeds]
    print(f"\n| test accuracy, {len(results)} seeds | median | range |\n|---|---|---|")
    for name in results[0]:
        values = [result[name] for result in results]
        print(f"| {name} | {median(values):.3f} | {min(values):.3f} to {max(values):.3f} |")


if __name__ == "__main__":
    main()
