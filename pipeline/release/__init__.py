"""From a candidate to the champion: gate, registry and promotion.

>>> from pipeline.release import registry
>>> registry.is_uri("models:/classifier@champion")
True
"""
