"""A trained classifier, ready for new images.

model file + bytes of images -> answers, computed as by evaluate: with the decoding, engine, batch
size and threads of the training. Shared by predict, serving and the gate.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data import image_file
from pipeline.data.image_file import Decoded, Pixels
from pipeline.data.tasks import Outputs
from pipeline.errors import InputError
from pipeline.networks import model_file, runtime
from pipeline.networks.trust import judging
from pipeline.networks.trust.judging import Answers, Judge
from pipeline.storage.outputs import ROOT

if TYPE_CHECKING:
    import keras

    from pipeline.networks.gradcam import GradCam

MODEL = ROOT / "finetune" / "model.keras"
"""Output of fine-tuning."""


class Classifier:
    """A loaded model file.

    Args:
        path: A .keras file of this pipeline.
        allow_code: Let code in it run; see `model_file.load`.
        unknown: Fraction of ordinary images that may be flagged as unknown.
        coverage: Fraction of images whose prediction set contains the true label.
        insist: Require prediction sets, instead of returning them if possible.

    Attributes:
        card: Class names, image size, batch size, engine.
        task: What the model predicts.
        gives_sets: True if answers include prediction sets.

    Raises:
        InputError: The model cannot be read, its engine is not installed, or it cannot provide
            the required prediction sets.
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
        reference = model_file.reference_of(path)
        self.task = self.card.predicts
        self._thresholds = reference.thresholds
        self._judge = Judge(reference, self.task, self.card.classes, unknown, coverage, insist)
        self.gives_sets = self._judge.gives_sets
        self._forward = model_file.forward(path, self.card, lambda: self.model)

    @cached_property
    def model(self) -> keras.Model:
        """The Keras network: (B, H, W, 3) float32 RGB in [0, 255] -> (B, K)."""
        try:
            runtime.configure(None, self.card.threads)
        except RuntimeError:  # for example in a notebook that already uses TensorFlow
            warnings.warn(
                f"TensorFlow is already in use with other than the {self.card.threads} threads of "
                "this model: the last digits of probabilities may differ",
                stacklevel=2,
            )
        return model_file.load(self._path, allow_code=True)[0]

    def decode(self, content: bytes) -> Pixels:
        """Decode an image file to (H, W, 3) uint8 RGB, as the network expects it.

        Raises:
            BadImage: The content is not an image; the message is the reason.
        """
        return image_file.decode(content, self.card.image_size, self.card.decoding).pixels

    def answers(self, images: Pixels) -> Answers:
        """Classify images, with the reliability of each answer.

        Args:
            images: (N, H, W, 3) uint8 RGB.
        """
        return self._judge(self._forward.all(images))

    def of_files(
        self, files: Sequence[Path], desc: str
    ) -> Iterator[tuple[list[tuple[Path, Decoded | str]], Answers | None]]:
        """Classify files batch by batch, only one of which is in memory at a time.

        Batches and threads are those of evaluate, so the probabilities are the same.

        Yields:
            Files with their images, or why they have none; answers for those that have one.
        """
        most = self.card.batch_size
        with tqdm(total=len(files), desc=desc, unit="image", disable=None) as bar:
            for start in range(0, len(files), most):
                batch = files[start : start + most]
                decoded = [image_file.or_reason(partial(self._decoded, file)) for file in batch]
                good = [image.pixels for image in decoded if not isinstance(image, str)]
                answers = self.answers(np.stack(good)) if good else None
                yield list(zip(batch, decoded, strict=True)), answers
                bar.update(len(batch))

    def _decoded(self, file: Path) -> Decoded:
        return image_file.decode(file.read_bytes(), self.card.image_size, self.card.decoding)

    def decided(self, outputs: Outputs) -> list[str]:
        """Return the predictions for (N, K) outputs, as labels."""
        return self.task.decided(outputs, self._thresholds, self.card.classes)

    def probabilities(
        self, images: Pixels, rows: NDArray[np.int64] | None = None, desc: str = ""
    ) -> NDArray[np.float32]:
        """Predict outputs, such as probabilities, independently of how images are grouped.

        Args:
            images: (N, H, W, 3) uint8 RGB, memory-mapped or not.
            rows: Rows to use; all if None.
            desc: Name of the progress bar; no bar if empty.

        Returns:
            (N, K), or one row for each of `rows`.
        """
        classes = len(self.card.classes)
        parts = [batch[:, :classes].copy() for batch in self._forward.batches(images, rows, desc)]
        return np.concatenate([np.empty((0, classes), np.float32), *parts])

    def explain(self, pixels: Pixels) -> Pixels:
        """Show the regions that speak for the prediction (Grad-CAM).

        Args:
            pixels: (H, W, 3) uint8 RGB, as from `decode`.

        Returns:
            (H, W, 3) uint8 RGB, with a heat map over the image.

        Raises:
            InputError: The network keeps no rows and columns.
        """
        if self._cam.layer is None:
            raise InputError("Grad-CAM needs a layer that keeps rows and columns, there is none")
        from pipeline.networks.gradcam import overlay

        predicted = self.probabilities(pixels[None]).argmax(axis=1)
        return overlay(pixels, self._cam.maps(pixels[None], predicted)[0])

    @cached_property
    def _cam(self) -> GradCam:
        network = self.model  # sets up TensorFlow, which the next line imports
        from pipeline.networks.gradcam import GradCam

        return GradCam(network)
