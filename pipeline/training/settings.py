"""Settings shared by head training and fine-tuning."""

from dataclasses import dataclass
from enum import StrEnum

from pipeline.settings import setting


class ClassWeight(StrEnum):
    """Weighting of classes in the loss."""

    balanced = "balanced"


class Monitor(StrEnum):
    """Metric on the validation split for comparing epochs, trials and models."""

    log_loss = "log_loss"
    accuracy = "accuracy"
    macro_f1 = "macro_f1"


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimizer that nobody has a reason to change.

    Attributes:
        warmup: Fraction of steps used for linear warm-up.
        cosine: Cosine decay to zero, instead of a constant rate.
        clip_norm: Maximum global norm of gradients; None for no limit.
        weight_decay: Weight decay of AdamW, not applied to biases and scales. 0 selects Adam.
        lowest_rate: Learning rate of the lowest trainable layers, as a fraction of the head's.
        interpolate: Try weights between the start and the best epoch.
    """

    warmup: float = 0.0
    cosine: bool = False
    clip_norm: float | None = None
    weight_decay: float = 0.0
    lowest_rate: float = 1.0
    interpolate: bool = False


@dataclass
class Training:
    """Settings of a training."""

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
        0.0,
        "Fraction of each label spread over all classes.",
        least=0,
        below=1,
        advanced=True,
    )
    class_weight: ClassWeight | None = setting(
        None, "`balanced` weights each class by its inverse frequency."
    )

    @property
    def recipe(self) -> Recipe:
        """Settings of the optimizer."""
        return Recipe()
