"""Train a backbone above a cut, once or many times, on activations that are kept where it pays.

tuned = Finetuner(body, prepared, store, augment, ...).fit(config.finetune, head, log)
"""
