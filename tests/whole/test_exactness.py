"""Training on cached activations gives the same weights as training on images."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import frozen_part

from pipeline.features import activations, cuts
from pipeline.features.source import Source
from pipeline.features.store import Config as StoreConfig
from pipeline.features.store import Store
from pipeline.finetuning.settings import Config
from pipeline.networks import backbones, engines, heads
from pipeline.networks.backbones import keras_application
from pipeline.networks.engines import Engine
from pipeline.networks.keras_forward import images_apart
from pipeline.training import fitting
from pipeline.training.examples import Examples

BATCH = 8
IMAGES = 21  # the last batch is a partial one
SETTINGS = Config(learning_rate=3e-4, epochs=3, batch_size=BATCH, weight_decay=0.05)


class InOneGraph(keras.Model):
    """The plain recipe: each step also runs the frozen part, in the same graph."""

    def __init__(self, lower: keras.Model, above: keras.Model) -> None:
        super().__init__(name="in_one_graph")
        self.lower, self.above = images_apart(lower), above
        self.build(lower.input_shape)

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.above(self.lower(x, training=False), training=training)

    @property
    def layers(self) -> Any:
        """Variables with their own learning rates."""
        return self.above.layers

    @property
    def _functional(self) -> Any:
        return self.above

    @property
    def output_shape(self) -> Any:
        return self.above.output_shape


def fine_tuned(
    name: str, cut: str, batch_norm: bool, way: str, root: Path, engine: Engine = Engine.keras
) -> dict[str, np.ndarray]:
    """The backbone's and the head's weights after 3 epochs, and before, by path."""
    config = keras_application.Config(name=name, weights=None)
    model = backbones.build(config, 64, 0).model
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 64, 64, 3)).astype(np.uint8)
    labels = rng.integers(3, size=IMAGES)
    # Fresh networks squash everything to nothing: give BatchNorm the statistics of the images.
    norms = [item for item in model.layers if isinstance(item, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(images.astype(np.float32), training=True)
    for layer in norms:
        layer.momentum = 0.99
    keras.utils.set_random_seed(1)
    head = heads.build(heads.Config(units=[16], dropout=0.3), model.output_shape[1], 3)
    resolved = cuts.resolve(model, cut, batch_norm)
    cuts.freeze(model, resolved.trainable, batch_norm)
    lower, upper = cuts.split(model, resolved.at)
    trained = heads.join(upper, head, "trained")
    rows = np.arange(IMAGES)
    above: keras.Model = trained
    frozen = frozen_part(config, engine=engines.Config(engine), batch_size=BATCH)
    source = Source(frozen, model, "w", images, "i")
    inputs: Any = images
    if way == "plain":
        above = InOneGraph(lower, above)
    elif way == "computed":
        inputs = activations.Computed(source.forward(resolved.at), images)
    else:
        inputs = activations.below(Store(StoreConfig(), root / way), source, resolved.at, rows)
    examples = Examples(inputs, rows, labels)
    before = {w.path: w.numpy() for w in (*model.weights, *head.weights)}
    fitting.fit(
        above, examples, examples, SETTINGS, fitting.Session(0, root / "work", lambda *_: None)
    )
    after = {w.path: w.numpy() for w in (*model.weights, *head.weights)}
    assert any((after[path] != before[path]).any() for path in after if "head" not in path)
    return {path: after[path] - before[path] for path in after} | {
        f"{path} after": value for path, value in after.items() if "seed" not in path
    }


CASES = [
    ("MobileNetV2", "block_13_expand"),
    ("EfficientNetV2B0", "block6h_expand_conv"),
    ("ResNet50", "conv5_block3_1_conv"),
    ("VGG16", "block5_conv1"),
]


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True], ids=["frozen", "train"])
@pytest.mark.parametrize(("name", "cut"), CASES)
def test_cached_and_plain_agree(name: str, cut: str, batch_norm: bool, tmp_path: Path) -> None:
    plain = fine_tuned(name, cut, batch_norm, "plain", tmp_path)
    cached = fine_tuned(name, cut, batch_norm, "cached", tmp_path)
    again = fine_tuned(name, cut, batch_norm, "cached", tmp_path)
    computed = fine_tuned(name, cut, batch_norm, "computed", tmp_path)
    weights = [path for path in plain if path.endswith(" after")]
    assert all((cached[path] == again[path]).all() for path in weights), "cached runs are the same"
    assert all((cached[path] == computed[path]).all() for path in weights)
    differing = [path for path in weights if (plain[path] != cached[path]).any()]
    print(f"{name} {cut} {len(differing)} of {len(weights)} differ, {apart(plain, cached):.1e}")
    assert not differing


def apart(item: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Length of the difference of two updates, as a share of the first one's length."""
    updates = [path for path in item if not path.endswith(" after")]
    update = np.sqrt(sum(float((item[path] ** 2).sum()) for path in updates))
    return float(
        np.sqrt(sum(float(((item[path] - other[path]) ** 2).sum()) for path in updates)) / update
    )
