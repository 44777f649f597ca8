"""Settings shared by head training and fine-tuning."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pipeline.settings import setting


class ClassWeight(StrEnum):
    """Weighting of classes in the loss."""

    balanced = "balanced"


class Monitor(StrEnum):
    """Metric on the validation split for comparing epochs, trials and models."""

    log_loss = "log_loss"
    accuracy = "accuracy"
    macro_f1 = "macro_f1"


@dataclass
class Training:
    """Settings of a training."""

    # Constants, since nobody has a reason to change them.
    warmup = 0.0  # fraction of steps used for linear warm-up
    cosine = False  # decay to zero along a cosine, instead of a constant rate
    clip_norm: ClassVar[float | None] = None  # maximum global norm of gradients
    weight_decay = 0.0  # of AdamW, not applied to biases and scales; 0 selects Adam
    lowest_rate = 1.0  # rate of the lowest trainable layers, as a fraction of the head's
    interpolate = False  # try weights between the start and the best epoch

    learning_rate: float = setting(1e-3, "Learning rate of Adam.", above=0)
    epochs: int = setting(100, "Maximum number of epochs.", least=1)
    patience: int | None = setting(
        10,
        "Early stopping after this many epochs without improvement; null never stops early. The "
        "weights of the best epoch are used either way.",
        least=1,
    )
    monitor: Monitor = setting(
        Monitor.log_loss,
        "Metric that selects epochs, on the validation split: log_loss (after temperature scaling, "
        "so that overconfidence does not matter), accuracy or macro_f1.",
        advanced=True,
    )
    batch_size: int = setting(32, "Images per training step.", least=1)
    label_smoothing: float = setting(
        0.0, "Fraction of each label spread over all classes.", least=0, below=1, advanced=True
    )
    class_weight: ClassWeight | None = setting(
        None, "`balanced` weights each class by its inverse frequency."
    )
