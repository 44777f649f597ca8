"""List the images of a folder that are most worth a label, the best first.

For people with a labelling tool of their own. Labels so far are read from labels.csv in the folder.

    python -m pipeline suggest photos -n 20 --label-studio > tasks.json
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.intake import label_file
from pipeline.storage import tables
from pipeline.teaching import opening


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, the label file, the network, the number and the form."""
    opening.arguments(parser)
    parser.add_argument("-n", type=int, default=20, metavar="N", help="number (default: 20)")
    parser.add_argument(
        "--label-studio", action="store_true", help="tasks for Label Studio instead of csv"
    )


def run(options: argparse.Namespace, compose: Callable[..., Config]) -> None:
    """Print the images.

    Raises:
        InputError: There are no images, or the label file cannot be read.
    """
    from pipeline.teaching import order
    from pipeline.teaching.labels import read
    from pipeline.teaching.learner import Learner

    if options.n < 1:
        raise InputError(f"-n must be at least 1, got {options.n}")
    latest = {name: label for name, label, _ in read(opening.label_file(options))}
    with redirect_stdout(sys.stderr):  # standard output is the list alone
        pool = opening.opened(options, compose)
    names = [sample.path for sample in pool.samples]
    labels = {row: latest[name] for row, name in enumerate(names) if latest.get(name)}
    learner = Learner(pool.features)
    learned = learner.fit(labels)
    held_out = label_file.held_out(names)
    answers = learned.probabilities
    useful = order.suggest(learner.reduced, answers, labels, options.n, held_out).tolist()
    rows = order.mixed(useful, held_out, labels, options.n)
    lines = [(names[row], learned.guess(row), float(answers[row].max())) for row in rows]
    if options.label_studio:
        print(json.dumps([_task(*line) for line in lines], indent=1))
        return
    writer = tables.rows_to(sys.stdout)
    writer.writerow(("path", "guess", "probability"))
    writer.writerows(
        (tables.harmless(name), tables.harmless(guess), f"{chance:.4f}" if guess else "")
        for name, guess, chance in lines
    )


def _task(path: str, guess: str, probability: float) -> dict[str, Any]:
    """Describe an image in Label Studio's format, with the guess as a prediction."""
    choice = {"from_name": "label", "to_name": "image", "type": "choices"}
    result = [{**choice, "value": {"choices": [guess]}}] if guess else []
    prediction = {"model_version": "pipeline", "score": probability, "result": result}
    return {"data": {"image": path}, "predictions": [prediction] if guess else []}
