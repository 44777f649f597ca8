"""The score: one number to compare epochs, trials and models; lower is better.

labels (N,) + probabilities (N, K) -> a score and its components.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.training import calibration
from pipeline.training.settings import Monitor


def judge(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], monitor: Monitor
) -> dict[str, float]:
    """Score predictions on the validation split.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K).
        monitor: Metric that counts. `log_loss` is computed after fitting a temperature to the same
            images, so that confidence alone does not matter. For accuracy and macro F1, the log
            loss breaks ties.

    Returns:
        val_loss, val_accuracy, val_score and the temperature.
    """
    temperature = calibration.temperature(labels, probabilities)
    calibrated = calibration.log_loss(labels, probabilities, temperature)
    predicted = probabilities.argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    score = calibrated
    if monitor != Monitor.log_loss:
        by_class = monitor == Monitor.macro_f1
        value = _macro_f1(labels, predicted, probabilities.shape[1]) if by_class else accuracy
        score = 1 - value + 0.5 * min(calibrated, 1.0) / len(labels)
    return {
        "val_loss": calibration.log_loss(labels, probabilities),
        "val_accuracy": accuracy,
        "val_score": score,
        "temperature": temperature,
    }


def losses(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], monitor: Monitor
) -> NDArray[np.float64]:
    """Return each image's contribution to the score, (N,): log loss, or 1 if it is wrong.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K).
        monitor: As for `judge`.
    """
    if monitor == Monitor.log_loss:
        temperature = calibration.temperature(labels, probabilities)
        return calibration.log_losses(labels, probabilities, temperature)
    return np.asarray(probabilities.argmax(axis=1) != labels, dtype=np.float64)


def _macro_f1(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> float:
    from sklearn.metrics import f1_score

    every = np.arange(classes)
    score = f1_score(labels, predicted, labels=every, average="macro", zero_division=0)
    return float(score)
