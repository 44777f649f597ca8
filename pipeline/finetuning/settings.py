"""Section `finetune`. Imports nothing heavy."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from pipeline.settings import AUTO, AutoFloat, AutoInt, automatic, setting
from pipeline.training.settings import Recipe, Training

_SHARED = ("cut", "batch_norm", "cache", "precision", "monitor", "calibrate", "replicas", "soup")
"""The same in all trainings of a soup, or there would be nothing to average."""


class BatchNorm(StrEnum):
    """What BatchNormalization above the cut does while the network trains."""

    frozen = "frozen"
    train = "train"


class Cache(StrEnum):
    """Whether the activations below the cut are computed once and kept."""

    auto = "auto"
    always = "always"
    never = "never"


class Precision(StrEnum):
    """What kept activations are stored as."""

    float32 = "float32"
    float16 = "float16"


@dataclass
class Config(Training):
    """Section `finetune`."""

    learning_rate: AutoFloat = automatic(
        "Peak learning rate of AdamW. `auto` scales it with the batch size.", above=0
    )
    weight_decay: float = setting(
        0.01, "Weight decay of AdamW; biases and scales do not decay.", least=0
    )
    label_smoothing: float = setting(
        0.1, "Fraction of the label that is spread over all classes.", least=0, below=1
    )
    epochs: AutoInt = automatic(
        "Number of epochs. `auto` chooses it from the size of the training set.", least=1
    )
    patience: int | None = setting(
        None,
        "Epochs without a better score before stopping; null never stops early. The weights of "
        "the best epoch are kept either way.",
        least=1,
    )
    interpolate: bool = setting(
        True,
        "Whether weights between the head-only model's and the fine-tuned one's are tried, too: "
        "those nearest to the head-only model are kept whose score is within a standard error of "
        "the best.",
    )
    cut: Any = setting(
        AUTO,
        "Layer from which on the backbone trains: a name, an index as Keras counts, "
        "{blocks: N} for the last N blocks, auto, or none to keep the head-only model.",
    )
    batch_norm: BatchNorm = setting(
        BatchNorm.frozen,
        "Whether BatchNormalization above the cut learns and moves its statistics.",
    )
    cache: Cache = setting(
        Cache.auto,
        "Whether the activations below the cut are computed once and kept; auto decides by "
        "disk, memory and time.",
    )
    precision: Precision = setting(
        Precision.float32,
        "What kept activations are stored as: float16 takes half the disk, and training then "
        "differs from training without a cache.",
    )
    soup: list[Any] = setting(
        [],
        "Settings of further trainings from the same cut, such as {learning_rate: 1e-3}: their "
        "weights are averaged with the first one's where that improves the score.",
    )
    replicas: int = setting(
        1,
        "GPUs of this machine that each batch is shared among; other numbers give other last bits.",
        least=1,
    )
    calibrate: bool = setting(
        True,
        "Give the finished classifier a temperature, fitted on the validation split, that "
        "makes it as sure as it is right.",
    )

    @classmethod
    def varied(cls) -> list[str]:
        """Names of the settings that may differ among the trainings of a soup."""
        return [field.name for field in fields(cls) if field.name not in _SHARED]

    @property
    def recipe(self) -> Recipe:
        """Warm-up, a cosine to zero, and lower rates for lower layers."""
        return Recipe(0.1, True, 1.0, self.weight_decay, 0.3, self.interpolate)

    @property
    def head_only(self) -> bool:
        """Whether nothing is fine-tuned."""
        return self.cut in (None, "none")
