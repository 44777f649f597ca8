"""What travels with a model: the classifier, the pyfunc around it, the guard of its server.

    probabilities = Classifier(Path("outputs/finetune/model.keras")).probabilities(pictures)

Neither Hydra nor DVC nor Optuna may be reachable from here: none of them is installed where a
model is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.serving.pyfunc import Service


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Service:
    """What MLflow calls for models that were registered when this package was one file."""
    from pipeline.serving import pyfunc

    return pyfunc._load_pyfunc(path, model_config)
