"""Scikit-learn's logistic regression on the features of a frozen backbone, as it is.

python -m benchmarks.plain_logistic SEED: outputs/prepare -> rival.npy, (N, K) of all images.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.predictions import RIVAL
from pipeline import config
from pipeline.data.manifest import Manifest
from pipeline.networks import backbones, runtime

BATCH = 32


def main(seed: int) -> None:
    composed = config.compose()
    runtime.configure(seed, composed.threads)
    data = Manifest(Path("outputs/prepare"))
    train = data.indices("train")
    body = backbones.build(composed.backbone, data.image_size, seed).model
    features = body.predict(np.asarray(data.images), batch_size=BATCH, verbose=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features[train], data.targets[train])
    np.save(RIVAL, model.predict_proba(features))


if __name__ == "__main__":
    main(int(sys.argv[1]))
