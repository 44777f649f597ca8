"""Bytes on disk: folders that are locked, written aside and renamed last; digests; tables.

    >>> from pipeline.storage import outputs
    >>> outputs.STAGES
    ('prepare', 'extract_features', 'train_head', 'finetune', 'evaluate')

Also arrays larger than memory and the work folder. Knows nothing of images or networks.
"""
