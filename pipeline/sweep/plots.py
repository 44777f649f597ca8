"""Plots of a study, as pictures and as interactive pages that work offline.

study -> history, importance, parallel coordinates, cut against score.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna.visualization as interactive
import optuna.visualization.matplotlib as drawn
import plotly.graph_objects as go
from matplotlib import pyplot as plt
from optuna import Study
from optuna.trial import FrozenTrial

from pipeline.storage import outputs

_SCORE = "validation score"


def write(opened: Study, done: list[FrozenTrial], cuts: list[str], folder: Path) -> list[str]:
    """Draw four PNG; returns the same plots as pieces of HTML, the first with all scripts.

    Args:
        opened: The study.
        done: Its complete trials.
        cuts: Names of the cuts, shallow to deep, backbone by backbone.
        folder: Gets the pictures.
    """
    mpl.use("agg")
    pages = [interactive.plot_optimization_history(opened, target_name=_SCORE)]
    _save(drawn.plot_optimization_history(opened, target_name=_SCORE), folder / "history.png")
    pages.append(_cut_against_score(done, cuts))
    _save(_drawn_cut_against_score(done, cuts), folder / "cut_and_score.png")
    if len({str(trial.params) for trial in done}) > 1:
        pages.append(interactive.plot_parallel_coordinate(opened, target_name=_SCORE))
        _save(drawn.plot_parallel_coordinate(opened, target_name=_SCORE), folder / "parallel.png")
    if len(done) > 3 and len({trial.value for trial in done}) > 1:
        pages.append(interactive.plot_param_importances(opened, target_name=_SCORE))
        _save(drawn.plot_param_importances(opened, target_name=_SCORE), folder / "importance.png")
    return [
        page.to_html(full_html=False, include_plotlyjs=number == 0)
        for number, page in enumerate(pages)
    ]


def _save(axes: Any, path: Path) -> None:
    figure = axes.get_figure()
    with outputs.replacing_file(path) as aside:
        figure.savefig(aside, dpi=100, bbox_inches="tight")
    plt.close(figure)


def _places(done: list[FrozenTrial]) -> list[int]:
    return [int(trial.params["cut"]) for trial in done]


def _rates(done: list[FrozenTrial]) -> list[float]:
    """Learning rates, which colour the trials; 0 where they do not vary."""
    return [float(trial.params.get("finetune.learning_rate", 0)) for trial in done]


def _cut_against_score(done: list[FrozenTrial], cuts: list[str]) -> go.Figure:
    rates = _rates(done)
    colors, title = rates, "learning rate"
    if all(rates):
        colors, title = [math.log10(rate) for rate in rates], "log10 of learning rate"
    points = go.Scatter(
        x=_places(done),
        y=[trial.value for trial in done],
        mode="markers",
        text=[f"trial {t.number}, learning rate {r:.2g}" for t, r in zip(done, rates, strict=True)],
        marker={"size": 11, "color": colors, "colorscale": "Viridis", "showscale": True}
        | {"colorbar": {"title": title}},
    )
    figure = go.Figure(points)
    ticks = {"tickvals": list(range(len(cuts))), "ticktext": cuts}
    figure.update_layout(title="Cut and score", xaxis=ticks, yaxis={"title": _SCORE})
    return figure


def _drawn_cut_against_score(done: list[FrozenTrial], cuts: list[str]) -> Any:
    figure, axes = plt.subplots(figsize=(8, 5))
    rates = _rates(done)
    norm = mpl.colors.LogNorm() if all(rates) else None
    losses = np.array([trial.value for trial in done])
    points = axes.scatter(_places(done), losses, c=rates, norm=norm, s=50)
    figure.colorbar(points, label="learning rate")
    axes.set_xticks(range(len(cuts)), cuts, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel(_SCORE)
    axes.set_title("Cut and score")
    return axes
