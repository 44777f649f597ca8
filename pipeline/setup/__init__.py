"""Set up a project: derive settings from images, and check this machine.

    >>> from pipeline.setup import params_file
    >>> params_file.written(["cat", 1, None])
    '[cat, 1, null]'

Derives every value of params.yaml from the data, with its reason; checks a project from its
weights to its ports.
"""
