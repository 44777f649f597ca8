"""The settings that head training and fine-tuning share."""

from dataclasses import dataclass

from pipeline.errors import InputError


@dataclass
class Training:
    """How a model is trained.

    Attributes:
        learning_rate: Of Adam.
        epochs: At most.
        patience: Epochs without a lower validation loss before stopping; the weights of
            the best epoch are kept.
        batch_size: Pictures a step.
        label_smoothing: Share of the label spread over all classes.
        class_weight: null, or `balanced` to weigh each class by the inverse of its size.
        weight_decay: Of AdamW, decoupled from the gradient.
    """

    learning_rate: float = 1e-3
    epochs: int = 100
    patience: int = 10
    batch_size: int = 32
    label_smoothing: float = 0.0
    class_weight: str | None = None
    weight_decay: float = 0.0

    def check(self, section: str) -> None:
        """Check what types cannot say.

        Raises:
            InputError: A value out of its range.
        """
        least = {"learning_rate": 0.0, "epochs": 1, "patience": 1, "batch_size": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value < low or not value:
                rule = f"at least {low}" if low else "above 0"
                raise InputError(f"{section}.{name} must be {rule}, got {value}")
        smoothing = self.label_smoothing
        if not 0 <= smoothing < 1:
            raise InputError(
                f"{section}.label_smoothing must be at least 0 and below 1, got {smoothing}"
            )
        if self.weight_decay < 0:
            raise InputError(f"{section}.weight_decay must be at least 0, got {self.weight_decay}")
        if self.class_weight not in (None, "balanced"):
            raise InputError(
                f"{section}.class_weight must be null or balanced, got {self.class_weight!r}"
            )
