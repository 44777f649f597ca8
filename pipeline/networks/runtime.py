"""Make TensorFlow deterministic: seeds, op determinism, thread count.

Call before any TensorFlow operation: threads cannot change afterwards.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TextIO

from pipeline.errors import InputError, shortened
from pipeline.storage import workspace


def configure(seed: int | None, threads: int, replicas: int = 1) -> None:
    """Fix everything that results depend on besides the inputs.

    Args:
        seed: Seed for Python, NumPy and TensorFlow; None leaves those of the application.
        threads: Threads inside an operation; the last bits of sums depend on it.
        replicas: Devices to train on; without a GPU, parts of the processor.

    Raises:
        InputError: `threads` is below 1.
    """
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    if "tensorflow" not in sys.modules and sys.stderr.isatty():
        print("loading TensorFlow", file=sys.stderr)  # takes seconds
    # Keras imports these two, a fifth of its time, for wrappers and galleries not used here.
    with quiet(), hidden("sklearn", "matplotlib"):
        keras = _keras()
        import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # Running operations in parallel changes no byte; dividing one differently does.
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    if replicas > 1 and not tf.config.list_physical_devices("GPU"):
        (processor,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(processor, parts)
    if seed is not None:
        keras.utils.set_random_seed(seed)


def _keras() -> ModuleType:
    """Import Keras with its own defaults, ignoring keras.json in the user's home.

    Raises:
        InputError: Keras cannot read that file, or the process uses another backend.
    """
    try:
        import keras
    except (ValueError, AttributeError, TypeError) as error:
        home = os.environ.get("KERAS_HOME", "~/.keras")
        raise InputError(
            f"Keras cannot read its settings in {home}/keras.json ({shortened(str(error))}): "
            "delete that file, it is not needed here"
        ) from error
    if keras.config.backend() != "tensorflow":
        raise InputError(
            f"Keras must use TensorFlow, but uses {keras.config.backend()} in this process: "
            "import pipeline before keras, or set KERAS_BACKEND=tensorflow"
        )
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    module: ModuleType = keras
    return module


def versions() -> dict[str, str]:
    """Name the libraries and the processor that compute: the last bits depend on them."""
    import keras
    import tensorflow as tf

    devices = [
        tf.config.experimental.get_device_details(device).get("device_name", device.device_type)
        for device in tf.config.list_physical_devices()
        if device.device_type != "CPU"
    ]
    return {
        "keras": keras.version(),
        "tensorflow": tf.version.VERSION,
        "processor": " ".join([workspace.processor(), *devices]),
    }


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Make packages appear not installed during an import, unless they are already in use."""
    unused = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(unused))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in unused:
            del sys.modules[name]


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Hide everything written to stderr, by C++ and Python alike.

    TensorFlow reports its build and a missing GPU there during import, before it reads the variable
    that would silence it; converters report their progress. Failures still raise exceptions.

    Yields:
        The visible stderr, for a progress bar.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    original, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with os.fdopen(original, "w", buffering=1, closefd=False) as visible:
            yield visible
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
        os.close(nowhere)


@contextmanager
def quiet_building() -> Iterator[None]:
    """Ignore warnings about loaded layers without a `build` method of their own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`build\(\)` was called on layer")
        yield
