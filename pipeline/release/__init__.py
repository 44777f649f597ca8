"""From a candidate to the champion: the gate, the registry, and the order of promotions.

>>> from pipeline.release import registry
>>> registry.is_uri("models:/classifier@champion")
True
"""
