"""The learning rate of each step: linear warm-up, then constant or a cosine to zero.

Source: Loshchilov and Hutter 2017, SGDR; without its restarts.
"""

import math

from pipeline.training.settings import Schedule, Training


def rate(settings: Training, step: int, steps: int) -> float:
    """The learning rate of a step.

    Args:
        settings: Of the training.
        step: Counted from 0.
        steps: Of the whole training.
    """
    warm = settings.warmup * steps
    if step < warm:
        return settings.learning_rate * min(1.0, (step + 1) / warm)
    if settings.schedule == Schedule.constant:
        return settings.learning_rate
    done = (step - warm) / max(1.0, steps - warm)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
