"""Forward passes that requests share: what waits is answered together, in one thread.

images from coroutines -> answers. Answers do not depend on how images are grouped.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

import numpy as np

from pipeline.data.image_file import Pixels
from pipeline.networks.trust.judging import Answers

_ROWS = 64
"""Images after which no more are added to a pass."""


_Waiting = tuple[Pixels, asyncio.Future[Answers | None]]


class Batches:
    """Answers images of one event loop.

    Args:
        answers: (N, H, W, 3) uint8 RGB -> their answers; None if the network fails.
    """

    def __init__(self, answers: Callable[[Pixels], Answers | None]) -> None:
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="forward").start()

    async def __call__(self, images: Pixels) -> Answers | None:
        """Answer images, (N, H, W, 3) uint8 RGB."""
        answer: asyncio.Future[Answers | None] = self._loop.create_future()
        self._queue.put((images, answer))
        return await answer

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while sum(len(images) for images, _ in batch) < _ROWS and not self._queue.empty():
                batch.append(self._queue.get())
            batch = [item for item in batch if not item[1].cancelled()]
            if batch:
                answers = self._answers(np.concatenate([images for images, _ in batch]))
                self._loop.call_soon_threadsafe(_deliver, batch, answers)


def _deliver(batch: list[_Waiting], answers: Answers | None) -> None:
    start = 0
    for images, answer in batch:
        end = start + len(images)
        if not answer.done():
            answer.set_result(None if answers is None else answers.of(slice(start, end)))
        start = end
