"""One number by which epochs, trials and models are compared; the lower the better.

labels (N,) + probabilities (N, K) -> a score, and what it was made from.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.training import calibration
from pipeline.training.settings import Monitor


def judge(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], monitor: Monitor
) -> dict[str, float]:
    """How good predictions on the validation split are.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K).
        monitor: What counts. For `log_loss` that is the log loss after a temperature fitted to
            these very images, so that a model is not judged by how sure it is. Where accuracy
            or macro-F1 counts, the log loss decides between equals.

    Returns:
        val_loss, val_accuracy, val_score and the temperature.
    """
    temperature = calibration.temperature(labels, probabilities)
    calibrated = calibration.log_loss(labels, probabilities, temperature)
    predicted = probabilities.argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    between_equals = 0.5 * min(calibrated, 1.0) / len(labels)
    scores = {
        Monitor.log_loss: calibrated,
        Monitor.accuracy: 1 - accuracy + between_equals,
        Monitor.macro_f1: 1 - _macro_f1(labels, predicted, probabilities.shape[1]) + between_equals,
    }
    return {
        "val_loss": calibration.log_loss(labels, probabilities),
        "val_accuracy": accuracy,
        "val_score": scores[monitor],
        "temperature": temperature,
    }


def losses(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], monitor: Monitor
) -> NDArray[np.float64]:
    """What each image adds to the score, (N,): its log loss, or whether it is wrong.

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
