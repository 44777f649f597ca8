"""What travels with a model: the classifier, the pyfunc around it, the guard of its server.

    probabilities = Classifier(Path("outputs/finetune/model.keras")).probabilities(pictures)

Neither Hydra nor DVC nor Optuna may be reachable from here: none of them is installed where a
model is served.
"""
