"""The settings that head training and fine-tuning share."""

from dataclasses import dataclass
from enum import StrEnum

from pipeline.settings import setting


class ClassWeight(StrEnum):
    """How much each class counts in the loss."""

    balanced = "balanced"


@dataclass
class Training:
    """How a model is trained."""

    learning_rate: float = setting(1e-3, "Of Adam.", above=0)
    epochs: int = setting(100, "At most.", least=1)
    patience: int = setting(
        10,
        "Epochs without a lower validation loss before stopping; the weights of the best epoch "
        "are kept.",
        least=1,
    )
    batch_size: int = setting(32, "Pictures a step.", least=1)
    label_smoothing: float = setting(
        0.0, "Share of the label that is spread over all classes.", least=0, below=1
    )
    class_weight: ClassWeight | None = setting(
        None, "balanced weighs each class by the inverse of its size."
    )
    weight_decay: float = setting(0.0, "Of AdamW, decoupled from the gradient.", least=0)
