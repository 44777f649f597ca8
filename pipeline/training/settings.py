"""The settings that head training and fine-tuning share."""

from dataclasses import dataclass
from enum import StrEnum

from pipeline.settings import setting


class ClassWeight(StrEnum):
    """How much each class counts in the loss."""

    balanced = "balanced"


class Schedule(StrEnum):
    """How the learning rate runs, step by step."""

    constant = "constant"
    cosine = "cosine"


class Monitor(StrEnum):
    """What epochs, trials and models are compared by, on the validation split."""

    log_loss = "log_loss"
    accuracy = "accuracy"
    macro_f1 = "macro_f1"


@dataclass
class Training:
    """How a model is trained."""

    learning_rate: float = setting(1e-3, "Of Adam; with a schedule, the highest.", above=0)
    schedule: Schedule = setting(
        Schedule.constant, "How the rate runs by step: constant, or on a cosine down to zero."
    )
    warmup: float = setting(
        0.0, "Share of all steps in which the rate first rises from zero.", least=0, below=1
    )
    clip_norm: float | None = setting(
        None, "Longest gradient, all variables taken together; a longer one is cut to it.", above=0
    )
    epochs: int = setting(100, "At most.", least=1)
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
    batch_size: int = setting(32, "Pictures a step.", least=1)
    label_smoothing: float = setting(
        0.0, "Share of the label that is spread over all classes.", least=0, below=1
    )
    class_weight: ClassWeight | None = setting(
        None, "balanced weighs each class by the inverse of its size."
    )
    weight_decay: float = setting(0.0, "Of AdamW; biases and scales do not decay.", least=0)
    average: float = setting(
        0.0,
        "Share of all steps over which the weights are averaged, the latest counting most; what "
        "is judged and kept is the average. 0 keeps the weights themselves.",
        least=0,
        below=1,
    )
