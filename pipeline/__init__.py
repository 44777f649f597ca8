"""Transfer learning for pictures, as a DVC pipeline tracked in MLflow.

    prepare -> extract_features -> train_head -> finetune -> evaluate

Reading order: `__main__` and `runner` (what runs), `config` (params.yaml and conf/ to one checked
config), `stages` (one file a stage), then the rooms that they use, from the ground up: `storage`,
`data`, `intake`, `networks`, `features`, `training`, `finetuning`, `evaluation`, `serving`,
`tracking`, `release`, `export`, `sweep`; and `commands` (one file a command). Each package's
docstring says what happens in it; imports point one way, which tests/whole/test_house.py holds.
"""

import os

# What results depend on is in the config, not in the environment of whoever runs this.
# TensorFlow takes oneDNN by itself on newer processors alone. Without it, the last bits of an
# image's activations depend on its place in the batch, and cached and plain training part ways.
os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
for _name in (
    *("TF_XLA_FLAGS", "XLA_FLAGS", "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC"),
    *("TF_ENABLE_AUTO_MIXED_PRECISION", "TF_ENABLE_AUTO_MIXED_PRECISION_GRAPH_REWRITE"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_USE_LEGACY_KERAS"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TF_ENABLE_MKL_NATIVE_FORMAT"),
    *("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED"),
):
    os.environ.pop(_name, None)
