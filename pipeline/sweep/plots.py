"""Plots of a study: interactive HTML that works offline.

study -> front, history, cut against score, learning curves, parallel coordinates, importance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
import optuna.visualization as interactive
import plotly.graph_objects as go
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

_CUT = "cut"
_MIN_FOR_IMPORTANCE = 20
"""Fewer trials give importances that are mostly noise."""


def draw(
    opened: Study, trials: list[FrozenTrial], cuts: list[str], names: Sequence[str]
) -> list[str]:
    """Render plots as pieces of HTML, the first with all scripts.

    Args:
        opened: The study.
        trials: Its finished trials, at least one of them complete.
        cuts: Names of the cuts, shallow to deep, backbone by backbone.
        names: Objectives; plots of one value use the first.
    """
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    several = len(names) > 1
    first: dict[str, Any] = {"target_name": names[0]}
    by_first: dict[str, Any] = {"target": lambda trial: trial.values[0]} if several else {}
    named = _with_names(opened, done, cuts)
    figures: list[go.Figure] = []
    if several:
        # With more than three objectives, the first two: a plot has no four axes.
        targets: dict[str, Any] = {"target_names": list(names)}
        if len(names) > 3:
            targets = {"target_names": list(names[:2]), "targets": lambda trial: trial.values[:2]}
        figures.append(interactive.plot_pareto_front(opened, **targets))
    figures.append(interactive.plot_optimization_history(opened, **first, **by_first))
    figures.append(_cut_against_score(trials, cuts, names[0]))
    if any(trial.intermediate_values for trial in trials):
        figures.append(interactive.plot_intermediate_values(opened))
    if len({str(trial.params) for trial in done}) > 1:
        figures.append(interactive.plot_parallel_coordinate(named, **first))
    if len(done) >= _MIN_FOR_IMPORTANCE and len({trial.values[0] for trial in done}) > 1:
        figures.append(interactive.plot_param_importances(named, **first))
    return [
        figure.to_html(full_html=False, include_plotlyjs=number == 0)
        for number, figure in enumerate(figures)
    ]


def _with_names(opened: Study, done: list[FrozenTrial], cuts: list[str]) -> Study:
    """Copy the trials in memory, with the first objective and names of cuts."""
    named = optuna.create_study(direction=opened.directions[0])
    for trial in done:
        params = {**trial.params, _CUT: cuts[trial.params[_CUT]]}
        places = {**trial.distributions, _CUT: CategoricalDistribution(cuts)}
        named.add_trial(create_trial(params=params, distributions=places, value=trial.values[0]))
    return named


def _scored(
    trials: list[FrozenTrial], name: str
) -> list[tuple[str, list[FrozenTrial], list[float]]]:
    """Return marker, trials and values of complete and pruned trials."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = [t for t in trials if t.state == TrialState.PRUNED and t.intermediate_values]
    last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned]
    values = [float(trial.user_attrs[name]) for trial in done]
    return [("circle", done, values), ("x", pruned, last)]


def _cut_against_score(trials: list[FrozenTrial], cuts: list[str], name: str) -> go.Figure:
    figure = go.Figure()
    for symbol, some, values in _scored(trials, name):
        rates = [float(t.params.get("finetune.learning_rate", 0)) for t in some]  # 0 if fixed
        colors, title = rates, "learning rate"
        if rates and all(rates):
            colors, title = [math.log10(rate) for rate in rates], "log10 of learning rate"
        texts = [
            f"trial {t.number}, learning rate {r:.2g}" for t, r in zip(some, rates, strict=True)
        ]
        marker = {"size": 11, "symbol": symbol, "color": colors, "colorscale": "Viridis"}
        marker |= {"showscale": symbol == "circle", "colorbar": {"title": title, "y": 0.4}}
        figure.add_trace(
            go.Scatter(
                x=[int(trial.params[_CUT]) for trial in some],
                y=values,
                mode="markers",
                name="complete" if symbol == "circle" else "pruned",
                text=texts,
                marker=marker,
            )
        )
    ticks = {"tickvals": list(range(len(cuts))), "ticktext": cuts}
    figure.update_layout(
        title="First trainable layer and score", xaxis=ticks, yaxis={"title": name}
    )
    return figure
