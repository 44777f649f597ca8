"""A prepared data set: how an image is decoded, and which has which label in which split.

>>> from pathlib import Path
>>> from pipeline.data.manifest import Manifest
>>> Manifest(Path("outputs/prepare")).images.shape
(1797, 8, 8, 3)
"""
