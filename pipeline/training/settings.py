"""The settings that head training and fine-tuning share."""

from dataclasses import dataclass
from enum import StrEnum

from pipeline.settings import setting


class ClassWeight(StrEnum):
    """How much each class counts in the loss."""

    balanced = "balanced"


class Monitor(StrEnum):
    """What epochs, trials and models are compared by, on the validation split."""

    log_loss = "log_loss"
    accuracy = "accuracy"
    macro_f1 = "macro_f1"


@dataclass(frozen=True)
class Recipe:
    """How the optimizer runs: what nobody has a reason to set.

    Attributes:
        warmup: Fraction of steps in which the learning rate rises linearly from zero.
        cosine: Whether it then falls to zero along a cosine, or stays.
        clip_norm: Largest global norm of a gradient; None for no limit.
        weight_decay: Of AdamW; biases and scales do not decay. 0 makes it Adam.
        lowest_rate: Learning rate of the lowest trainable layers, as a fraction of the head's.
        interpolate: Whether weights between the first and the best epoch's are tried, too.
    """

    warmup: float = 0.0
    cosine: bool = False
    clip_norm: float | None = None
    weight_decay: float = 0.0
    lowest_rate: float = 1.0
    interpolate: bool = False


@dataclass
class Training:
    """How a model is trained."""

    learning_rate: float = setting(1e-3, "Learning rate of Adam.", above=0)
    epochs: int = setting(100, "Maximum number of epochs.", least=1)
    patience: int | None = setting(
        10,
        "Epochs without a better score before stopping; null never stops early. The weights of "
        "the best epoch are kept either way.",
        least=1,
    )
    monitor: Monitor = setting(
        Monitor.log_loss,
        "What the score is, on the validation split: log_loss after a temperature fitted for the "
        "purpose, which overconfidence does not fool; accuracy; or macro_f1.",
    )
    batch_size: int = setting(32, "Images per training step.", least=1)
    label_smoothing: float = setting(
        0.0, "Fraction of the label that is spread over all classes.", least=0, below=1
    )
    class_weight: ClassWeight | None = setting(
        None, "`balanced` weights each class by the inverse of its frequency."
    )

    @property
    def recipe(self) -> Recipe:
        """How the optimizer runs."""
        return Recipe()
