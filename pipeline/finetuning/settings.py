"""Section `finetune`. Imports nothing heavy."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.errors import InputError
from pipeline.settings import AUTO, AutoFloat, AutoInt, automatic, setting
from pipeline.training.settings import Schedule, Training


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
        "Of AdamW; with a schedule, the highest. auto goes by batch_size.", above=0
    )
    lowest_rate: float = setting(
        0.3,
        "Rate of the lowest layers that train, as a share of the head's; in between it falls "
        "block by block.",
        above=0,
        most=1,
    )
    schedule: Schedule = setting(
        Schedule.cosine, "How the rate runs by step: constant, or on a cosine down to zero."
    )
    warmup: float = setting(
        0.1, "Share of all steps in which the rate first rises from zero.", least=0, below=1
    )
    clip_norm: float | None = setting(
        1.0, "Longest gradient, all variables taken together; a longer one is cut to it.", above=0
    )
    weight_decay: float = setting(0.01, "Of AdamW; biases and scales do not decay.", least=0)
    label_smoothing: float = setting(
        0.1, "Share of the label that is spread over all classes.", least=0, below=1
    )
    epochs: AutoInt = automatic(
        "How many; fewer with patience. auto goes by the number of pictures.", least=1
    )
    patience: int | None = setting(
        None,
        "Epochs without a better score before stopping; null never stops early. The weights of "
        "the best epoch are kept either way.",
        least=1,
    )
    mixup: float = setting(
        0.0,
        "Alpha of MixUp: training sees mixtures of two pictures' activations at the cut; 0 mixes "
        "nothing, 0.2 a little.",
        least=0,
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

    def check(self, name: str) -> None:
        """Hold what cannot be shared among devices."""
        if self.replicas > 1 and self.mixup:
            raise InputError(
                f"{name}.mixup needs {name}.replicas=1, as partners may lie on another device, "
                f"got {self.replicas}"
            )

    @property
    def head_only(self) -> bool:
        """Whether nothing is fine-tuned."""
        return self.cut in (None, "none")
