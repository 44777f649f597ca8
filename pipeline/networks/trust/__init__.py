"""Reliability of answers, from reference data that a model file holds beside its network.

    >>> from pathlib import Path
    >>> from pipeline.networks import model_file
    >>> sorted(model_file.reference_of(Path("outputs/finetune/model.keras")).traits)[:2]
    ['brightness', 'colour']

Independent of training: fine-tuning provides the network's outputs.
"""
