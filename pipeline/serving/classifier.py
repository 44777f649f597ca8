"""A trained classifier, ready for images it has never seen.

model file + bytes of images -> answers, as evaluate computes them: decoding, engine, batch
size and threads are those of the training. Shared by predict, serving and the gate.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data import image_file
from pipeline.data.image_file import Pixels
from pipeline.networks import model_file, runtime
from pipeline.networks.trust import judging
from pipeline.networks.trust.judging import Answers, Judge
from pipeline.storage.outputs import ROOT

if TYPE_CHECKING:
    import keras

MODEL = ROOT / "finetune" / "model.keras"
"""Where fine-tuning leaves it."""


class Classifier:
    """A model file in memory.

    Args:
        path: A .keras file of this pipeline.
        allow_code: Whether code in it may run; see `model_file.load`.
        unknown: Share of ordinary images that may be called unknown.
        coverage: Share of images whose set of labels has the true one.
        insist: Whether these sets must be given, or only where the model can.

    Attributes:
        card: Class names, image size, batch size, engine.
        gives_sets: Whether answers have sets of labels.

    Raises:
        InputError: The model cannot be read, its engine is not installed, or it cannot give
            the sets of labels that are asked for.
    """

    def __init__(
        self,
        path: Path,
        allow_code: bool = False,
        unknown: float = judging.UNKNOWN,
        coverage: float = judging.COVERAGE,
        insist: bool = False,
    ) -> None:
        self.card = model_file.read_card(path)
        model_file.insist_on_trust(path, self.card, allow_code)
        self._path = path
        known = model_file.known(path)
        self._judge = Judge(known, len(self.card.classes), unknown, coverage, insist)
        self.gives_sets = self._judge.gives_sets
        self._forward = model_file.forward(path, self.card, lambda: self.model)

    @cached_property
    def model(self) -> keras.Model:
        """The network as Keras has it: (B, H, W, 3) float32 RGB in [0, 255] -> (B, K)."""
        try:
            runtime.configure(None, self.card.threads)
        except RuntimeError:  # a notebook that has used TensorFlow before
            warnings.warn(
                f"TensorFlow is in use already, with other than the {self.card.threads} threads "
                "that this model was made with: the last digits of probabilities may differ",
                stacklevel=2,
            )
        return model_file.load(self._path, allow_code=True)[0]

    def decode(self, content: bytes) -> Pixels:
        """Bytes of an image file -> (H, W, 3) uint8 RGB, as the network expects it.

        Raises:
            BadImage: The content is no image; the message is the reason.
        """
        return image_file.decode(content, self.card.image_size, self.card.decoding).pixels

    def answers(self, images: Pixels) -> Answers:
        """What the network says, and how far to rely on it.

        Args:
            images: (N, H, W, 3) uint8 RGB.
        """
        return self._judge(self._forward.all(images))

    def probabilities(
        self, images: Pixels, rows: NDArray[np.int64] | None = None, desc: str = ""
    ) -> NDArray[np.float32]:
        """What the network says; nothing depends on how many images come together.

        Args:
            images: (N, H, W, 3) uint8 RGB, memory-mapped or not.
            rows: Which of them; all if None.
            desc: Name of the progress bar; no bar if empty.

        Returns:
            (N, K), or a row for each of `rows`.
        """
        count, classes = len(images if rows is None else rows), len(self.card.classes)
        found, start = np.empty((count, classes), np.float32), 0
        for batch in self._forward.batches(images, rows, desc):
            found[start : start + len(batch)] = batch[:, :classes]
            start += len(batch)
        return found
