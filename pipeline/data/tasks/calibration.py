"""Temperature scaling: adjust a classifier's confidence to its accuracy.

probabilities + labels -> a temperature; head + temperature -> the same head with other confidence.
The most probable class does not change. Source: Guo et al. 2017, On Calibration of Modern Neural
Networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

if TYPE_CHECKING:
    import keras

LAYER = "temperature"
"""Name of the layer that divides the logits."""

_MAX_TEMPERATURE = 20.0
_VALUES = 4_000_000


def log_loss(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], temperature: float = 1.0
) -> float:
    """Compute the mean negative log probability of the true class, at a temperature."""
    return float(log_losses(labels, probabilities, temperature).mean())


def log_losses(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], temperature: float
) -> NDArray[np.float64]:
    """Compute the negative log probability of each image's true class, (N,), at a temperature."""
    logits = _logits(probabilities)
    own = logits[np.arange(len(labels)), labels]
    return _normalizers(logits, temperature) - own / temperature


def temperature(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """Fit the temperature with the lowest log loss; cautious about more confidence.

    A few images that are all classified correctly would make any classifier fully confident. Below
    1, the temperature is therefore the best one if one more image belonged to another class (Platt
    1999, Probabilistic outputs for support vector machines), and at most 1. The log loss of these
    images, which were not used for training, never increases.

    Returns:
        Above 1 for an overconfident classifier; between 0.05 and 20.
    """
    logits = _logits(probabilities)
    classes = logits.shape[1]
    own = logits[np.arange(len(labels)), labels]
    best = _lowest_loss(logits, own)
    if best < 1:
        wrong = 1 / (len(labels) + 1)
        others = (logits.sum(axis=1) - own) / max(1, classes - 1)
        cautious = (1 - wrong) * own + wrong * others
        best = min(1.0, max(best, _lowest_loss(logits, cautious)))
    # Rounded to be independent of the solver's last bits, and in float32, as it is stored.
    return float(np.float32(round(best, 4)))


def _lowest_loss(logits: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Find the temperature at which the cross-entropy with some targets is lowest.

    `wanted` is (N,): the mean of each row's logits, weighted by its targets.
    """

    def loss(log_temperature: float) -> float:
        at = float(np.exp(log_temperature))
        return float((_normalizers(logits, at) - wanted / at).sum())

    bound = np.log(_MAX_TEMPERATURE)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def _normalizers(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Compute the log-sum-exp of each row at a temperature, (N,), in parts."""
    step = max(1, _VALUES // logits.shape[1])
    parts = [
        logsumexp(logits[start : start + step] / temperature, axis=1)
        for start in range(0, len(logits), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _logits(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    tiny = np.finfo(np.float32).tiny
    logits: NDArray[np.float64] = np.log(np.maximum(probabilities.astype(np.float64), tiny))
    return logits


def scaled(head: keras.Model, by: float) -> keras.Model:
    """Divide the logits of a head, which ends in softmax or sigmoid, by a temperature.

    Weights are shared.
    """
    import keras

    last = head.layers[-1]
    logits = keras.layers.Rescaling(1 / by, name=LAYER)(last.input)
    settings = {name: value for name, value in last.get_config().items() if name != "dtype"}
    again = type(last).from_config(settings)
    return keras.Model(head.inputs, again(logits), name=head.name)
