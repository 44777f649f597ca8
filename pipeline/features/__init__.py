"""The frozen part: where a backbone can be cut, and its activations there, computed once.

    >>> from pipeline.features import cuts
    >>> from pipeline.networks import backbones
    >>> from pipeline.networks.backbones import glyph_cnn
    >>> model = backbones.build(glyph_cnn.Config(), image_size=8, seed=0).model
    >>> lower, upper = cuts.split(model, "block2_pool")
    >>> lower.output_shape, upper.output_shape
    ((None, 4, 4, 32), (None, 2048))

Activations of images and of their augmented views are cached for all runs.
"""
