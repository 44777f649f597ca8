"""The prepared dataset: decoded images with their labels and splits.

>>> from pathlib import Path
>>> from pipeline.data.manifest import Manifest
>>> Manifest(Path("outputs/prepare")).images.shape
(1797, 8, 8, 3)
"""
