"""A trained classifier, ready for pictures it has never seen.

model file + bytes of pictures -> probabilities, as evaluate computes them: decoding, batch
size and threads are those of the training. Shared by predict, serving and the gate.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data import images
from pipeline.data.images import Pixels
from pipeline.networks import model_file, runtime
from pipeline.storage.outputs import ROOT

MODEL = ROOT / "finetune" / "model.keras"
"""Where fine-tuning leaves it."""


class Classifier:
    """A model file in memory.

    Args:
        path: A .keras file of this pipeline.
        allow_code: Whether code in it may run; see `model_file.load`.

    Attributes:
        card: Class names, picture size, batch size.
        model: The network: (B, H, W, 3) float32 RGB in [0, 255] -> (B, K).

    Raises:
        InputError: The model cannot be read.
    """

    def __init__(self, path: Path, allow_code: bool = False) -> None:
        threads = model_file.read_card(path).threads
        try:
            runtime.configure(None, threads)
        except RuntimeError:  # a notebook that has used TensorFlow before
            warnings.warn(
                f"TensorFlow is in use already, with other than the {threads} threads that this "
                "model was made with: the last digits of probabilities may differ",
                stacklevel=2,
            )
        from pipeline.networks.forward import Forward

        self.model, self.card = model_file.load(path, allow_code)
        self._forward = Forward(self.model, self.card.batch_size)

    def decode(self, content: bytes) -> Pixels:
        """Bytes of a picture file -> (H, W, 3) uint8 RGB, as the network expects it.

        Raises:
            BadPicture: The content is no picture; the message is the reason.
        """
        return images.decode(content, self.card.image_size, self.card.decoding).pixels

    def probabilities(
        self, pictures: Pixels, rows: NDArray[np.int64] | None = None, desc: str = ""
    ) -> NDArray[np.float32]:
        """What the network says; nothing depends on how many pictures come together.

        Args:
            pictures: (N, H, W, 3) uint8 RGB, memory-mapped or not.
            rows: Which of them; all if None.
            desc: Name of the progress bar; no bar if empty.

        Returns:
            (N, K), or a row for each of `rows`.
        """
        return self._forward.all(pictures, rows, desc)
