"""Keras models: backbones, heads, graphs, forward passes, files with reproducible bytes.

    body = backbones.build(config.backbone, image_size=224, seed=0)

`backbones` has one module a kind of network. Knows nothing of training.
"""
