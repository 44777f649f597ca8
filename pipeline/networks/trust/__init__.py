"""What a model file holds beside its network, to tell how far an answer can be relied on.

    >>> from pathlib import Path
    >>> from pipeline.networks import model_file
    >>> sorted(model_file.known(Path("outputs/finetune/model.keras")).traits)[:2]
    ['brightness', 'colour']

Knows nothing of training: fine-tuning gives it what the network says of the images at hand.
"""
