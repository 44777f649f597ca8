"""Transfer learning for images, as a DVC pipeline tracked in MLflow.

    prepare -> extract_features -> train_head -> finetune -> evaluate

Reading order: `__main__` and `runner` (command line), `config` (params.yaml and conf/ to one
checked config), `stages` (one file per stage), then the packages they use, from the bottom up:
`storage`, `data`, `intake`, `networks`, `features`, `training`, `finetuning`, `evaluation`,
`serving`, `tracking`, `release`, `export`, `sweep`; and `commands` (one file per command). Each
package's docstring says what it does. Imports point one way; tests/whole/test_house.py checks it.
In Python, `from pipeline import Classifier` (`api`).
"""

import importlib
import os
from typing import Any

__version__ = "0.2.0"

# Results depend on the config, not on the environment of the person who runs this: every switch of
# these libraries goes but those for logs, folders and GPU memory.
_SWITCHES = (
    *("TF_", "XLA_", "KERAS_", "ONEDNN_", "DNNL_", "OV_", "NPY_", "OPENBLAS_CORETYPE"),
    *("NVIDIA_TF32_OVERRIDE", "CUBLAS_", "CUDNN_"),
)
_HARMLESS = ("TF_CPP_", "KERAS_HOME", "TF_GPU_ALLOCATOR", "TF_FORCE_GPU_ALLOW_GROWTH")
for _name in tuple(os.environ):
    if _name.startswith(_SWITCHES) and not _name.startswith(_HARMLESS):
        del os.environ[_name]

# TensorFlow enables oneDNN by default on newer processors only. Without it, the last bits of an
# image's activations depend on its place in the batch, and cached and plain training diverge.
os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
# MLflow would send usage data, by a thread that changes the environment while others read it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def __getattr__(name: str) -> Any:
    """Import `Classifier` on first use: its libraries take a while."""
    if name == "Classifier":
        return importlib.import_module(f"{__name__}.api").Classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
