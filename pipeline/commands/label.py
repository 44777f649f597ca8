"""Open a page to label the images of a folder, the most useful ones first.

A head learns while you label: the page shows its guess, its accuracy and labels that it doubts.
Labels are appended to labels.csv in the folder, which init reads.

    python -m pipeline label photos --backbone mobilenet_v2
"""

import argparse
from collections.abc import Callable

from pipeline.config import Config
from pipeline.teaching import opening


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, the label file, the network and the port."""
    opening.arguments(parser)
    parser.add_argument("--port", type=int, default=5002, help="port of the page (default: 5002)")


def run(options: argparse.Namespace, compose: Callable[..., Config]) -> None:
    """Show the page until the process is stopped.

    Raises:
        InputError: There are no images, another page writes the label file, or the port is taken.
    """
    from pipeline.setup import machine
    from pipeline.teaching.labels import LabelFile

    machine.check_port("127.0.0.1", options.port, "--port")
    labels = LabelFile(opening.label_file(options))
    if labels.damaged:
        print(f"{labels.path}: removed an incomplete last line")
    pool = opening.opened(options, compose)

    import uvicorn

    from pipeline.teaching import app
    from pipeline.teaching.session import Session

    session = Session(pool, labels)
    print(f"http://127.0.0.1:{options.port} (stop with Ctrl-C)", flush=True)
    uvicorn.run(
        app.create(session),
        port=options.port,
        access_log=False,
        log_level="warning",
        server_header=False,
    )
    labels.close()
    classes = len(set(labels.labels.values()))
    print(f"{len(labels.labels)} labels of {classes} classes in {labels.path}")
    print(f"next: python -m pipeline init {labels.path}, then make repro")
