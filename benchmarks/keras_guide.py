"""The recipe of Keras' transfer-learning guide, on the prepared images.

python -m benchmarks.keras_guide SEED: outputs/prepare -> rival.npy, (N, K) of all images.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.predictions import RIVAL
from pipeline import config
from pipeline.data.manifest import Manifest
from pipeline.networks import backbones, runtime

EPOCHS = 12
BATCH = 32


def main(seed: int) -> None:
    composed = config.compose()
    runtime.configure(seed, composed.threads)
    data = Manifest(Path("outputs/prepare"))
    train = data.indices("train")
    base = backbones.build(composed.backbone, data.image_size, seed).model
    base.trainable = False
    images = keras.Input(base.input_shape[1:])
    x = keras.layers.RandomFlip("horizontal")(images)
    x = keras.layers.RandomRotation(0.1)(x)
    x = keras.layers.Dropout(0.2)(base(x, training=False))
    model = keras.Model(images, keras.layers.Dense(len(data.classes))(x))
    cells = (
        tf.data.Dataset.from_tensor_slices((np.asarray(data.images[train]), data.targets[train]))
        .shuffle(len(train), seed=seed)
        .batch(BATCH)
        .prefetch(tf.data.AUTOTUNE)
    )
    for rate in (1e-3, 1e-5):
        base.trainable = rate < 1e-3
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(cells, epochs=EPOCHS, verbose=0)
    logits = model.predict(np.asarray(data.images), batch_size=BATCH, verbose=0)
    np.save(RIVAL, tf.nn.softmax(logits).numpy())


if __name__ == "__main__":
    main(int(sys.argv[1]))
