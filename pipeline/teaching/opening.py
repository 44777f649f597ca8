"""Open a folder for labelling: its images, their features, and the labels so far.

command line -> `Pool`. The network is that of a params.yaml that `init` wrote, or the one that
`init` would choose.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.features.store import Store
from pipeline.setup import params_file
from pipeline.setup.params_file import DEFAULT
from pipeline.storage.outputs import PARAMS
from pipeline.teaching import pool
from pipeline.teaching.pool import Pool

NAME = "labels.csv"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, the label file and the network."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help=f"csv file of labels, in FOLDER or above it (default: FOLDER/{NAME})",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="a file in conf/backbone, or a .keras or .h5 model (default: that of params.yaml if "
        f"init wrote it, else {DEFAULT})",
    )


def label_file(options: argparse.Namespace) -> Path:
    """Return the label file.

    Raises:
        InputError: There is no such folder, or the file is not where paths of images can be
            relative to it.
    """
    if not options.folder.is_dir():
        raise InputError(f"no such folder: {options.folder}; name a folder of images")
    path: Path = options.labels or options.folder / NAME
    if not options.folder.resolve().is_relative_to(path.parent.resolve()):
        raise InputError(
            f"--labels must name a file in {options.folder} or in a folder above it, because its "
            f"paths are relative to it, got {path}"
        )
    return path


def opened(options: argparse.Namespace, compose: Callable[..., Config]) -> Pool:
    """Read the images and compute the features that are not stored.

    Raises:
        InputError: There are no images, or the network is not available.
    """
    labels = label_file(options)
    samples = pool.listed(options.folder, labels)
    if options.backbone is None and PARAMS.exists() and not params_file.is_default():
        config = compose()
    else:
        data = {"use": "folder", "path": str(options.folder)}
        config = params_file.composed(data, options.backbone or DEFAULT, compose)
    opened = pool.read(samples, pool.frozen_network(config, samples), Store(config.activations))
    print(opened)
    return opened
