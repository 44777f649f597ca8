"""Section `finetune`. Has no heavy imports."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from pipeline.settings import AUTO, AutoFloat, AutoInt, automatic, setting
from pipeline.training.settings import Training

_SHARED = ("cut", "batch_norm", "cache", "precision", "monitor", "calibrate", "replicas", "soup")
"""Identical in all trainings of a soup, otherwise weights could not be averaged."""


class BatchNorm(StrEnum):
    """Mode of BatchNormalization above the cut during training."""

    frozen = "frozen"
    train = "train"


class Cache(StrEnum):
    """When to cache the activations below the cut."""

    auto = "auto"
    always = "always"
    never = "never"


class Precision(StrEnum):
    """Storage type of cached activations."""

    float32 = "float32"
    float16 = "float16"


@dataclass
class Config(Training):
    """Section `finetune`."""

    warmup, cosine, clip_norm, lowest_rate = 0.1, True, 1.0, 0.3
    learning_rate: AutoFloat = automatic(
        "Peak learning rate of AdamW. `auto` scales it with the batch size.", above=0
    )
    weight_decay: float = setting(
        0.01, "Weight decay of AdamW, not applied to biases and scales.", least=0
    )
    label_smoothing: float = setting(
        0.1, "Fraction of each label spread over all classes.", least=0, below=1
    )
    epochs: AutoInt = automatic(
        "Number of epochs. `auto` chooses it from the size of the training set, and stops early if "
        "validation no longer improves, unless the head is often wrong.",
        least=1,
    )
    patience: int | None = setting(
        None,
        "Early stopping after this many epochs without improvement; null never stops early. The "
        "weights of the best epoch are used either way.",
        least=1,
        advanced=True,
    )
    interpolate: bool = setting(
        True,
        "Try interpolating between the head-only and fine-tuned weights (WiSE-FT), and keep the "
        "point closest to head-only that is within one standard error of the best.",
        advanced=True,
    )
    cut: Any = setting(
        AUTO,
        "First trainable layer: a layer name, a Keras layer index, `{blocks: N}` for the last N "
        "blocks, `none` for a frozen backbone, or `auto`: a low one, or a high one, which is "
        "faster, if the head is hardly ever wrong on the validation split.",
    )
    batch_norm: BatchNorm = setting(
        BatchNorm.frozen, "`frozen` keeps BatchNormalization in inference mode; `train` updates it."
    )
    cache: Cache = setting(
        Cache.auto,
        "Cache the activations below the cut; `auto` decides by disk, memory and time.",
        advanced=True,
    )
    precision: Precision = setting(
        Precision.float32,
        "Storage type of cached activations: float16 halves disk space, but training then differs "
        "from training without a cache.",
        advanced=True,
    )
    soup: list[Any] = setting(
        [],
        "Settings of further trainings from the same cut, such as {learning_rate: 1e-3}, whose "
        "weights are averaged with the first if that improves the score (model soup).",
        advanced=True,
    )
    replicas: int = setting(
        1,
        "Number of GPUs that share each batch; the last bits of results depend on it.",
        least=1,
        advanced=True,
    )
    calibrate: bool = setting(
        True,
        "Calibrate the probabilities with a temperature fitted on the validation split.",
        advanced=True,
    )

    @classmethod
    def varied(cls) -> list[str]:
        """List the settings that can differ between the trainings of a soup."""
        return [field.name for field in fields(cls) if field.name not in _SHARED]

    @property
    def head_only(self) -> bool:
        """True if nothing is fine-tuned."""
        return self.cut in (None, "none")
