"""Fine-tune a backbone above a cut, once or many times, on cached activations if worthwhile.

>>> from pipeline.finetuning import recipe
>>> recipe.epochs(images=2000, batch_size=32).value
10
"""
