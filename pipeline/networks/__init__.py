"""Keras models: backbones, heads, graphs, forward passes, files with reproducible bytes.

    >>> from pipeline.networks import backbones
    >>> from pipeline.networks.backbones import glyph_cnn
    >>> backbones.build(glyph_cnn.Config(), image_size=8, seed=0).model.output_shape
    (None, 2048)

`backbones` has one module per kind of network. Independent of training.
"""
