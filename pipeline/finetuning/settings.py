"""Section `finetune`. Imports nothing heavy."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.settings import setting
from pipeline.training.settings import Training


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

    learning_rate: float = setting(1e-4, "Of Adam.", above=0)
    epochs: int = setting(20, "At most.", least=1)
    patience: int = setting(
        5,
        "Epochs without a lower validation loss before stopping; the weights of the best epoch "
        "are kept.",
        least=1,
    )
    cut: Any = setting(
        "none",
        "Layer from which on the backbone trains: a name, an index as Keras counts, "
        "{blocks: N} for the last N blocks, or none to keep the head-only model.",
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
    calibrate: bool = setting(
        False,
        "Give the finished classifier a temperature, fitted on the validation split, that "
        "makes it as sure as it is right.",
    )

    @property
    def head_only(self) -> bool:
        """Whether nothing is fine-tuned."""
        return self.cut in (None, "none")
