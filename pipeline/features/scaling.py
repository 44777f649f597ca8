"""Find the scaling that a network was trained with by trying scalings on training images.

network + labelled images -> the scaling whose features separate the classes best, with the reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.data.image_file import Pixels
from pipeline.data.manifest import Manifest
from pipeline.networks import backbones
from pipeline.storage import derived
from pipeline.storage.derived import Derived

if TYPE_CHECKING:
    from pipeline.features.source import FrozenPart
    from pipeline.networks.backbones import Backbone

SETTING = "backbone.scale"
_MOST_IMAGES, _FOLDS, _BATCH = 300, 5, 32
_STRENGTH = 0.01
"""C of the regression: a few hundred images need strong regularization."""
_CERTAIN = 1.96
Floats = NDArray[np.float64]


def resolved(frozen: FrozenPart, data: Manifest) -> tuple[FrozenPart, dict[str, Derived]]:
    """Derive `backbone.scale` from training images: the settings with it, and derived values."""
    names, reason = backbones.scalings(frozen.backbone, data.image_size)
    if not names:
        return frozen, {SETTING: Derived("none", reason)} if reason else {}
    rows = _spread(data.strata, data.indices("train"))
    chosen = choose(
        lambda name: _with(frozen, name).build(data.image_size),
        names,
        data.images[rows],
        data.strata[rows],
        seed=frozen.seed,
        threads=frozen.threads,
    )
    return _with(frozen, str(chosen.value)), {SETTING: chosen}


def as_extracted(frozen: FrozenPart, extracted: Path) -> FrozenPart:
    """Apply the scaling that extract_features derived; `extracted` is its output."""
    chosen = derived.read(extracted).get(SETTING)
    return _with(frozen, str(chosen.value)) if chosen else frozen


def choose(
    build: Callable[[str], Backbone],
    names: Sequence[str],
    images: Pixels,
    labels: NDArray[np.int64],
    *,
    seed: int,
    threads: int,
) -> Derived:
    """Compare scalings.

    Args:
        build: Name of a scaling -> the network with it.
        names: The scalings, likelier ones first.
        images: (M, H, W, 3).
        labels: (M,) class indices.
        seed: Seed of the folds.
        threads: Threads for linear algebra.

    Returns:
        The scaling with the lowest cross-validated log loss, and its lead.
    """
    from pipeline.networks.keras_forward import KerasForward

    enough = np.bincount(labels)[labels] > 1  # one to fit, one to evaluate
    images, labels = images[enough], np.unique(labels[enough], return_inverse=True)[1]
    if len(set(labels)) < 2:
        return Derived(names[0], "too few training images to try others")
    losses, accuracies = {}, {}
    for name in names:
        model = build(name).model
        features = KerasForward(model, _BATCH).all(images, None, f"backbone.scale={name}")
        if not np.isfinite(features).all() or (features == features[0]).all():
            continue
        probabilities = _cross_validated(features, labels, seed, threads)
        own = probabilities[np.arange(len(labels)), labels]
        losses[name] = -np.log(np.maximum(own, 1e-12))
        accuracies[name] = float((probabilities.argmax(axis=1) == labels).mean())
    if not losses:  # extract_features stops, with the numbers
        return Derived(names[0], "no scaling gives finite features that differ")
    best, *others = sorted(losses, key=lambda name: float(losses[name].mean()))
    reason = f"best in cross-validation on {len(labels)} training images: {accuracies[best]:.1%}"
    if others:
        reason += f", next {others[0]} {accuracies[others[0]]:.1%}"
        gaps = losses[others[0]] - losses[best]
        noise = _CERTAIN * float(gaps.std()) / np.sqrt(len(gaps))
        if gaps.mean() <= noise:
            reason += "; the difference is within noise, so set it if you know it"
    return Derived(best, reason)


def _cross_validated(
    features: NDArray[np.float32], labels: NDArray[np.int64], seed: int, threads: int
) -> Floats:
    """Cross-validate a regression; returns (M, K) probabilities."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = int(min(_FOLDS, np.bincount(labels).min()))
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=200))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        probabilities = cross_val_predict(
            regression, features.astype(np.float64), labels, cv=parts, method="predict_proba"
        )
    return cast(Floats, probabilities)


def _spread(labels: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Select up to a few hundred rows, as many of each class as possible."""
    own = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    share = max(2, _MOST_IMAGES // len(own))
    return np.sort(np.concatenate([each[:: max(1, -(-len(each) // share))] for each in own]))


def _with(frozen: FrozenPart, scale: str) -> FrozenPart:
    return replace(frozen, backbone=backbones.with_scale(frozen.backbone, scale))
