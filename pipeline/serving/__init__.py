"""What travels with a model: the classifier, the pyfunc around it, the guard of its server.

    >>> from pathlib import Path
    >>> from pipeline.serving.classifier import Classifier
    >>> Classifier(Path("outputs/finetune/model.keras")).card.image_size
    8

Neither Hydra nor DVC nor Optuna may be reachable from here: none of them is installed where a
model is served.
"""
