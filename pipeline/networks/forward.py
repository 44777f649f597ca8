"""Run a network forward over many rows, with any engine.

rows in memory or on disk -> outputs, batch by batch or as one array. An image's output must not
depend on the other images of its batch. Independent of Keras and other engines.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Floats = NDArray[np.float32]
Files = Mapping[str, bytes]
"""A converted network: file name -> content."""


class Forward(ABC):
    """A network's forward pass in inference mode.

    Attributes:
        rows_at_once: Maximum number of rows in one call.
        output_shape: Output shape of one row.
    """

    rows_at_once: int
    output_shape: tuple[int, ...]

    @abstractmethod
    def __call__(self, batch: NDArray[Any]) -> Floats:
        """Return the outputs of at most `rows_at_once` rows."""

    def batches(
        self, rows: Any, indices: NDArray[np.int64] | None = None, desc: str = ""
    ) -> Iterator[Floats]:
        """Yield the outputs batch by batch, with a progress bar named `desc`.

        Args:
            rows: (N, ...) array, memory-mapped or not.
            indices: Rows to use, in order; all if None.
            desc: Name of the progress bar; no bar if empty.
        """
        count = len(rows) if indices is None else len(indices)
        with tqdm(total=count, desc=desc, unit="image", disable=None if desc else True) as bar:
            for start in range(0, count, self.rows_at_once):
                chosen = slice(start, start + self.rows_at_once)
                batch = np.asarray(rows[chosen] if indices is None else rows[indices[chosen]])
                yield self(batch)
                bar.update(len(batch))

    def all(self, rows: Any, indices: NDArray[np.int64] | None = None, desc: str = "") -> Floats:
        """Return the outputs as one array: (N, ...)."""
        count = len(rows) if indices is None else len(indices)
        outputs = np.empty((count, *self.output_shape), np.float32)
        start = 0
        for batch in self.batches(rows, indices, desc):
            outputs[start : start + len(batch)] = batch
            start += len(batch)
        return outputs
