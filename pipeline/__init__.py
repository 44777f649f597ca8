"""Transfer learning for pictures, as a DVC pipeline tracked in MLflow.

    prepare -> extract_features -> train_head -> finetune -> evaluate

Reading order: `__main__` and `runner` (what runs), `config` (params.yaml and conf/ to one checked
config), `stages` (one file a stage), then the rooms that they use, from the ground up: `storage`,
`data`, `intake`, `networks`, `features`, `training`, `finetuning`, `evaluation`, `serving`,
`tracking`, `release`, `export`, `sweep`; and `commands` (one file a command). Each package's
docstring says what happens in it; imports point one way, which tests/whole/test_house.py holds.
"""

import os

# TensorFlow takes oneDNN by itself on newer processors alone. Without it, the last bits of a
# picture's activations depend on its place in the batch, and cached and plain training part ways.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
