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
    """Fix everything that results depend on beside the inputs.

    Args:
        seed: For Python, NumPy and TensorFlow; None leaves an application's own as they are.
        threads: Threads inside an operation; the last bits of sums depend on it.
        replicas: Devices that training is shared among; parts of the processor without a GPU.

    Raises:
        InputError: `threads` is below 1.
    """
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    if "tensorflow" not in sys.modules and sys.stderr.isatty():
        print("loading TensorFlow", file=sys.stderr)  # takes seconds
    # Keras loads these two, a fifth of its time, for wrappers and galleries that nothing here uses.
    with quiet(), hidden("sklearn", "matplotlib"):
        keras = _keras()
        import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # Which operations run side by side changes no byte; how one is divided does.
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    if replicas > 1 and not tf.config.list_physical_devices("GPU"):
        (processor,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(processor, parts)
    if seed is not None:
        keras.utils.set_random_seed(seed)


def _keras() -> ModuleType:
    """Keras with its own defaults, whatever keras.json in the user's home says.

    Raises:
        InputError: It cannot read that file, or another program has chosen another backend.
    """
    try:
        import keras
    except (ValueError, AttributeError, TypeError) as error:
        home = os.environ.get("KERAS_HOME", "~/.keras")
        raise InputError(
            f"Keras cannot read its settings in {home}/keras.json ({shortened(str(error))}): "
            "delete that file, nothing here needs it"
        ) from error
    if keras.config.backend() != "tensorflow":
        raise InputError(
            f"Keras must run on TensorFlow, and runs on {keras.config.backend()} in this process: "
            "import pipeline before keras, or set KERAS_BACKEND=tensorflow"
        )
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    module: ModuleType = keras
    return module


def versions() -> dict[str, str]:
    """Which libraries compute, on which kind of processor: the last bits depend on them."""
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
    """Let what is imported find packages not installed, unless they are in use already."""
    unused = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(unused))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in unused:
            del sys.modules[name]


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Keep what is written to stderr, by C++ and Python alike, from being seen.

    TensorFlow reports its build and the absence of a GPU there while it is imported,
    before it reads the variable that would silence it; converters report their progress.
    What goes wrong still comes as an exception.

    Yields:
        The stderr that is seen, for a progress bar.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with os.fdopen(kept, "w", buffering=1, closefd=False) as seen:
            yield seen
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def quiet_building() -> Iterator[None]:
    """Layers that are read back without a `build` of their own are no reason to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`build\(\)` was called on layer")
        yield
