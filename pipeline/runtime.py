"""Make TensorFlow deterministic: seeds, op determinism, thread count.

Call before any TensorFlow operation: threads cannot change afterwards.
"""


def configure(seed: int, threads: int) -> None:
    """Fix everything that results depend on beside the inputs.

    Args:
        seed: For Python, NumPy and TensorFlow.
        threads: Threads inside an operation; the last bits of sums depend on it.
    """
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
