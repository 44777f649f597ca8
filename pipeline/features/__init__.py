"""The frozen part: where a backbone can be cut, and what comes out there, computed once.

    lower, upper = cuts.split(model, "block_13_expand")

Activations of pictures and of their augmented views are kept in a store that all runs share.
"""
