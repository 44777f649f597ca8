"""Helpers for export tests: the repository's classifier, or a modified one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from pipeline.__main__ import main
from pipeline.networks import model_file


def export(folder: Path, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the command in this process, in a folder that has outputs/prepare."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        code = main(["export", *words])
    finally:
        os.chdir(before)
    return code, *capfd.readouterr()


def change(repository: Path, path: Path, **card: Any) -> tuple[keras.Model, Callable[[], Path]]:
    """The repository's classifier, and what writes it to `path`, with another card or not."""
    model, old = model_file.load(repository / "outputs/finetune/model.keras")

    def save() -> Path:
        model_file.save(model, path, model_file.Card(**{**vars(old), **card}))
        return path

    return model, save
