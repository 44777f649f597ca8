"""Files and folders: locked, written aside and renamed last; digests; tables; large arrays.

    >>> from pipeline.storage import outputs
    >>> outputs.STAGES
    ('prepare', 'extract_features', 'train_head', 'finetune', 'evaluate')

Also arrays larger than memory and the work folder. Independent of images and networks.
"""
