"""From a source of images to judged rows, each in a split.

    >>> from pipeline.intake.sources import digits
    >>> next(digits.images(digits.Config())).path
    '0/0000.png'

`sources` has one module a kind of source; `splitting` finds duplicates and draws the splits.
"""
