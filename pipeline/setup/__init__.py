"""The first five minutes: what a folder of images asks for, and what this machine has.

    >>> from pipeline.setup import params_file
    >>> params_file.written(["cat", 1, None])
    '[cat, 1, null]'

Derives every value of params.yaml from the data, with its reason; checks a project from its
weights to its ports.
"""
