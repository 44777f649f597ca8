"""Examples for training or evaluation, read batch by batch.

rows of arrays + labels -> batches. Independent of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.tasks import Targets, Task, classification


@dataclass(frozen=True)
class Examples:
    """Examples for training or evaluation.

    Attributes:
        inputs: (M, ...) array, memory-mapped or not, or another object with a shape, indexed by
            rows. If it has a method `begin`, it is called with the number of each epoch.
        rows: (N,) rows of the inputs.
        targets: N targets.
        task: What they are.
    """

    inputs: Any
    rows: NDArray[np.int64]
    targets: Targets
    task: Task = classification.TASK


class Rows:
    """Rows of an array, read on access: (N, ...), memory-mapped or not, and (M,) row numbers."""

    def __init__(self, array: Any, rows: NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows
        self.shape, self.dtype = (len(rows), *array.shape[1:]), array.dtype

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(self._array[self._rows[rows]])


class Views:
    """Inputs that provide another view of each example in every epoch.

    In epoch e, example i is view e mod K of its own permutation.

    Args:
        arrays: K arrays: (M, ...) each.
        seed: Seed of the permutations.
    """

    def __init__(self, arrays: list[Any], seed: int) -> None:
        self._arrays, self.shape = arrays, arrays[0].shape
        self._views = np.zeros(self.shape[0], dtype=np.int64)
        places = np.tile(np.arange(len(arrays)), (self.shape[0], 1))
        self._orders = np.random.default_rng([seed, len(arrays)]).permuted(places, axis=1)

    def begin(self, epoch: int) -> None:
        """Select the views of an epoch, counted from 0."""
        self._views = self._orders[:, epoch % len(self._arrays)]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        values = np.empty((len(rows), *self.shape[1:]), self._arrays[0].dtype)
        views = self._views[rows]
        for view in np.unique(views):
            mine = views == view
            values[mine] = self._arrays[view][rows[mine]]
        return values


def batches(
    examples: Examples,
    order: NDArray[np.int64],
    classes: int,
    batch_size: int,
    weights: NDArray[np.float32] | None = None,
) -> Iterator[tuple[NDArray[np.float32], ...]]:
    """Read examples batch by batch, one batch ahead.

    Args:
        examples: Examples to read.
        order: (N,) positions in `examples.rows`.
        classes: K.
        batch_size: B; the last batch is smaller.
        weights: (N,) weights of the examples, or None.

    Yields:
        (B, ...) inputs, (B, K) encoded targets and, with weights, (B,) weights.
    """

    def read(start: int) -> tuple[NDArray[np.float32], ...]:
        chosen = order[start : start + batch_size]
        inputs = np.asarray(examples.inputs[examples.rows[chosen]], dtype=np.float32)
        batch = (inputs, examples.task.encoded(examples.targets[chosen], classes))
        return batch if weights is None else (*batch, weights[chosen])

    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(read, 0)
        for start in range(0, len(order), batch_size):
            batch = upcoming.result()
            if start + batch_size < len(order):
                upcoming = reader.submit(read, start + batch_size)
            yield batch
