"""Test accuracy of the default task over seeds, beside raw pixels and the untrained backbone.

python -m benchmarks.default_accuracy [SEEDS]

Each seed draws other pictures for training: 20 a class, 20 for validation, the rest for test.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline import config
from pipeline.data.manifest import Manifest
from pipeline.networks import runtime
from pipeline.stages import evaluate, extract_features, finetune, prepare, train_head


def accuracies(seed: int, folder: Path) -> dict[str, float]:
    c = config.compose([f"seed={seed}"])
    names = ("data", "untrained", "features", "head", "tuned", "judged")
    out = {name: folder / name for name in names}
    for path in out.values():
        path.mkdir()
    prepare.run(c.prepare, seed=seed, data=c.data, out=out["data"])
    data = Manifest(out["data"])
    found = {"raw pixels": linear(data.images.reshape(len(data.images), -1), data)}
    shared = {"seed": seed, "threads": c.threads, "prepared": out["data"]}
    fresh = replace(c.backbone, weights=None)
    extract_features.run(
        c.extract_features, backbone=fresh, cache=c.activations, out=out["untrained"], **shared
    )
    found["untrained backbone"] = linear(np.load(out["untrained"] / "features.npy"), data)
    extract_features.run(
        c.extract_features, backbone=c.backbone, cache=c.activations, out=out["features"], **shared
    )
    shared |= {"log": lambda *_: None}
    train_head.run(c.train_head, head=c.head, features=out["features"], out=out["head"], **shared)
    finetune.run(
        c.finetune,
        backbone=c.backbone,
        batch_size=c.extract_features.batch_size,
        cache=c.activations,
        head=out["head"],
        out=out["tuned"],
        **shared,
    )
    metrics = evaluate.run(
        c.evaluate,
        prepared=out["data"],
        features=out["features"],
        head=out["head"],
        finetuned=out["tuned"],
        out=out["judged"],
    )
    found["head only"] = metrics["test_accuracy_head_only"]
    found["fine-tuned"] = metrics["test_accuracy_fine_tuned"]
    return found


def linear(inputs: np.ndarray, data: Manifest) -> float:
    """Test accuracy of a logistic regression."""
    train, test = data.indices("train"), data.indices("test")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    model.fit(inputs[train], data.labels[train])
    return float(model.score(inputs[test], data.labels[test]))


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    runtime.configure(0, 2)
    results = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            results.append(accuracies(seed, Path(folder)))
    print(f"\n| test accuracy, {len(results)} seeds | median | range |\n|---|---|---|")
    for name in results[0]:
        values = [result[name] for result in results]
        print(f"| {name} | {median(values):.3f} | {min(values):.3f} to {max(values):.3f} |")


if __name__ == "__main__":
    main()
