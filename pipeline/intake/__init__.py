"""From a source of pictures to judged rows, each in a split.

    pictures = sources.pictures(config.data)

`sources` has one module a kind of source; `splitting` finds duplicates and draws the splits.
"""
