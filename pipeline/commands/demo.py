"""Open a web page that classifies an uploaded image and shows Grad-CAM.

On this machine only, unless `demo.host` says otherwise. Needs Gradio, which `make demo` installs.

    python -m pipeline demo demo.port=7860
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.image_file import Pixels
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.intake import sources
from pipeline.intake.sources import SourceConfig
from pipeline.release import registry
from pipeline.sections import Demo, Promote, Tracking
from pipeline.serving.defaults import MAX_IMAGE_MB
from pipeline.setup import machine
from pipeline.storage.outputs import ROOT

if TYPE_CHECKING:
    import gradio

SECTIONS = ("demo",)
_EXAMPLES = 10
_BATCH = 32
_HEIGHT_PX = 320
# Small images would be shown as dots.
_CSS = "#image img {width: 100%; height: 100%; object-fit: contain}"


def run(demo: Demo, promote: Promote, tracking: Tracking, data: SourceConfig) -> None:
    """Serve the page until it is stopped.

    Raises:
        InputError: Gradio is not installed, the port is taken, or there is no such model.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing leaves the machine
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise InputError("the page needs Gradio: pip install 'gradio~=6.31'") from error
    machine.check_port(demo.host, demo.port, "demo.port")
    uri, file = registry.champion_or(demo.model, promote.name, tracking)
    import mlflow

    with gradio.Blocks(title=uri) as page:
        _fill(page, uri, Answerer(mlflow.pyfunc.load_model(str(file.parents[1]))), _examples(data))
    print(f"{uri}: http://{demo.host}:{demo.port} (stop with Ctrl-C)", flush=True)
    page.launch(
        server_name=demo.host,
        server_port=demo.port,
        quiet=True,
        share=False,
        ssr_mode=False,
        max_file_size=f"{MAX_IMAGE_MB}mb",
        footer_links=[],
        css=_CSS,
    )


class Answerer:
    """Classify images for the page.

    Args:
        model: The pyfunc of `pipeline.serving.pyfunc`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._classifier = model.get_raw_model()
        network = self._classifier.model  # sets up TensorFlow, which the next line imports
        from pipeline.evaluation.gradcam import GradCam

        self._cam = GradCam(network)

    def __call__(
        self, paths: list[str | None]
    ) -> tuple[list[dict[str, float] | None], list[Pixels | None], list[str]]:
        """Answer all requests that arrive at the same moment.

        Args:
            paths: Paths of the images' files; None if there is no image.

        Returns:
            For each: class -> probability, the image with its heat map, and a remark: why there is
            neither, or that the image is unknown.
        """
        import pandas as pd

        rows = pd.DataFrame({"image": [Path(path) if path else None for path in paths]})
        answers = self._model.predict(rows).to_dict("records")
        maps = [
            None if answer["error"] else self._map(Path(str(path)), answer["prediction"])
            for path, answer in zip(paths, answers, strict=True)
        ]
        reasons = [
            "" if path is None else _remark(answer)
            for path, answer in zip(paths, answers, strict=True)
        ]
        return [answer["probabilities"] for answer in answers], maps, reasons

    def _map(self, path: Path, label: str) -> Pixels | None:
        from pipeline.evaluation.gradcam import overlay

        if self._cam.layer is None:
            return None
        image = self._classifier.decode(path.read_bytes())
        place = np.array([self._classifier.card.classes.index(label)])
        heat = self._cam.maps(image[None], place)[0]
        times = max(1, _HEIGHT_PX // len(image))
        return overlay(image.repeat(times, axis=0).repeat(times, axis=1), heat)


def _remark(answer: dict[str, Any]) -> str:
    """Say what else there is to know about an answer."""
    if answer["error"]:
        return f"**Not classified**: {answer['error']}"
    if not answer["known"]:
        return (
            "**Unknown**: unlike the training images (typicality "
            f"{answer['typicality']:.4f}). Do not rely on the prediction."
        )
    if labels := answer.get("labels"):
        return f"Prediction set: {', '.join(labels)}"
    return ""


def _fill(page: gradio.Blocks, uri: str, answerer: Answerer, examples: list[str]) -> None:
    import gradio

    gradio.Markdown(f"# {uri.removeprefix('models:/')}\nDrop an image, or choose an example.")
    with gradio.Row():
        with gradio.Column():
            dropped = gradio.Image(
                label="Image",
                sources=["upload", "clipboard"],
                height=_HEIGHT_PX,
                elem_id="image",
            )
            # The file as it was dropped: the classifier decodes it, not Gradio. Set on the object,
            # because Gradio writes a .pyi file beside every module that subclasses its components.
            dropped.preprocess = _path  # type: ignore[method-assign]
            if examples:
                # Not gradio.Examples, which replaces the object above when an image is clicked.
                samples = gradio.Dataset(
                    components=[dropped], samples=[[path] for path in examples], label="Test images"
                )
                samples.click(lambda sample: sample[0], samples, dropped, api_visibility="private")
        with gradio.Column():
            reason = gradio.Markdown()
            label = gradio.Label(label="Probabilities", num_top_classes=5)
            heat = gradio.Image(
                label="Grad-CAM",
                height=_HEIGHT_PX,
                interactive=False,
                buttons=["fullscreen", "download"],
            )
    dropped.change(
        answerer,
        dropped,
        [label, heat, reason],
        batch=True,
        max_batch_size=_BATCH,
        api_name="predict",
    )
    page.queue(max_size=256)


def _path(payload: Any) -> str | None:
    return payload.path if payload else None


def _examples(source: SourceConfig) -> list[str]:
    """Choose images from the test split, from as many classes as possible."""
    if not (ROOT / "prepare").is_dir():
        return []
    data = Manifest(ROOT / "prepare")
    by_class: dict[str, list[str]] = {}
    for row in data.indices("test"):
        by_class.setdefault(data.rows[row].label, []).append(data.rows[row].path)
    ranked = sorted(
        (place, path) for paths in by_class.values() for place, path in enumerate(paths)
    )
    wanted = {path for _, path in ranked[:_EXAMPLES]}
    folder = ROOT / ".examples"
    folder.mkdir(exist_ok=True)
    examples = []
    for image in sources.images(source):
        if image.path in wanted:
            path = folder / image.path.replace("/", "_")
            path.write_bytes(image.read())
            examples.append(str(path))
        if len(examples) == len(wanted):
            break
    return sorted(examples)
