"""Temperature scaling: one number that makes a classifier as sure as it is right.

probabilities + labels -> a temperature; head + temperature -> the same head, less sure or
surer. Which class is the most probable does not change. Source: Guo et al. 2017, On
Calibration of Modern Neural Networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

if TYPE_CHECKING:
    import keras

LAYER = "temperature"
"""Name of the layer that divides the logits."""

_HOTTEST = 20.0


def log_loss(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], temperature: float = 1.0
) -> float:
    """Mean of -log of the probability of the true class, at a temperature."""
    return float(log_losses(labels, probabilities, temperature).mean())


def log_losses(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], temperature: float
) -> NDArray[np.float64]:
    """(N,): -log of the probability of each picture's true class, at a temperature."""
    scaled_logits = log_softmax(_logits(probabilities) / temperature, axis=1)
    found: NDArray[np.float64] = -scaled_logits[np.arange(len(labels)), labels]
    return found


def temperature(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """The temperature with the lowest log loss; towards more confidence, with caution.

    A few pictures that are all right would make any classifier as sure as can be. Below 1 the
    temperature is therefore the best one if one more picture were of another class (Platt 1999,
    Probabilistic outputs for support vector machines), and at most 1. The log loss of these
    pictures is never higher than without a temperature.

    Args:
        labels: (N,) class indices of pictures that were not trained on.
        probabilities: (N, K).

    Returns:
        Above 1 for a classifier that is too sure; between 0.05 and 20.
    """
    logits = _logits(probabilities)
    classes = logits.shape[1]
    targets = np.eye(classes)[labels]
    best = _lowest_loss(logits, targets)
    if best < 1:
        wrong = 1 / (len(labels) + 1)
        cautious = (1 - wrong) * targets + wrong * (1 - targets) / max(1, classes - 1)
        best = min(1.0, max(best, _lowest_loss(logits, cautious)))
    # In float32, as it is kept; and rounded, so that it does not hang on the solver's last bits.
    return float(np.float32(round(best, 4)))


def _lowest_loss(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """The temperature at which the cross-entropy with the targets, (N, K), is lowest."""

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum())

    bound = np.log(_HOTTEST)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def _logits(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    tiny = np.finfo(np.float32).tiny
    logits: NDArray[np.float64] = np.log(np.maximum(probabilities.astype(np.float64), tiny))
    return logits


def scaled(head: keras.Model, by: float) -> keras.Model:
    """A head whose logits are divided by a temperature; weights are shared.

    Args:
        head: (B, D) -> (B, K), a softmax its last layer.
        by: The temperature.
    """
    import keras

    softmax = head.layers[-1]
    logits = keras.layers.Rescaling(1 / by, name=LAYER)(softmax.input)
    return keras.Model(head.inputs, keras.layers.Softmax(name=softmax.name)(logits), name=head.name)
