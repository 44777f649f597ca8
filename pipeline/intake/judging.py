"""Read and decode every picture of a source on all cores.

pictures -> a row of the manifest each, and its pixels or the reason why it has none.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

from joblib import Parallel, delayed
from tqdm import tqdm

from pipeline.data import images
from pipeline.data.decoding import Decoding
from pipeline.data.images import Decoded
from pipeline.data.manifest import Row
from pipeline.intake.sources import Picture

# joblib warns of pictures that were decoded in vain when a stage fails; its error says enough.
warnings.filterwarnings("ignore", module=r"joblib\.")

UNLABELLED = "it has no label: it lies in no class folder"
"""Why a picture is not used that is none the worse for it."""


def judge(
    pictures: Iterable[Picture], size_px: int, how: Decoding, desc: str
) -> Iterator[tuple[Row, Decoded | str]]:
    """Judge every picture, in order.

    Args:
        pictures: Of a source.
        size_px: Side of the square that they are brought to.
        how: How they are decoded.
        desc: Name of the progress bar.

    Yields:
        The picture's row, without a split if its source gives none, and the picture, or the
        reason why it is bad.
    """
    # Threads: decoding happens outside Python's lock, and nothing is copied between processes.
    workers = Parallel(n_jobs=-1, prefer="threads", return_as="generator", pre_dispatch="8*n_jobs")
    results = workers(delayed(_judge)(picture, size_px, how) for picture in pictures)
    yield from tqdm(results, desc=desc, unit="picture", disable=None)


def _judge(picture: Picture, size_px: int, how: Decoding) -> tuple[Row, Decoded | str]:
    row = Row(picture.path, picture.label, picture.split or "", "", 0, 0, "ok", picture.extra)
    if not picture.label:
        return row, UNLABELLED
    content = images.or_reason(picture.read)
    if isinstance(content, str):
        return row, content
    row = replace(row, sha256=hashlib.sha256(content).hexdigest(), group=picture.group)
    decoded = images.or_reason(lambda: images.decode(content, size_px, how))
    if isinstance(decoded, str):
        return row, decoded
    digest = hashlib.sha256(decoded.pixels.tobytes()).hexdigest()
    return replace(row, width=decoded.width, height=decoded.height, pixels=digest), decoded
