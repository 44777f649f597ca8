"""Train a backbone above a cut, once or many times, on activations that are kept where it pays.

>>> from pipeline.finetuning import recipe
>>> recipe.epochs(images=2000, batch_size=32).value
12
"""
