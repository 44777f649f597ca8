"""A trained model in use: classifier, pyfunc and HTTP server. The first two travel with the model.

    >>> from pathlib import Path
    >>> from pipeline.serving.classifier import Classifier
    >>> Classifier(Path("outputs/finetune/model.keras")).card.image_size
    8

Hydra, DVC and Optuna must not be imported from here: they are not installed where a model is
served.
"""
