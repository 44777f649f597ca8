"""Intake: from a source of images to checked rows, each with a split.

    >>> from pipeline.intake.sources import digits
    >>> next(digits.images(digits.Config())).path
    '0/0000.png'

`sources` has one module per kind of source; `splitting` finds duplicates and assigns splits.
"""
