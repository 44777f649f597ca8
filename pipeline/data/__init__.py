"""A prepared data set: how a picture is decoded, and which has which label in which split.

data = Manifest(Path("outputs/prepare"))
"""
