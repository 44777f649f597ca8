"""A process that runs trials: draw settings, train the head, fine-tune, judge on validation.

One backbone, one store and one traced model a cut serve all trials of the process.
The test split is never read.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psutil
from optuna import Study, Trial

from pipeline.data.manifest import Manifest
from pipeline.errors import InputError, Stopped
from pipeline.features.store import Store
from pipeline.finetuning import recipe
from pipeline.networks import runtime
from pipeline.storage import digests, outputs, workspace
from pipeline.sweep import networks, sharing, soup, space, study
from pipeline.sweep.networks import Network, Networks
from pipeline.sweep.space import NONE, Space
from pipeline.tracking import store as tracking_store
from pipeline.tracking.sweep_runs import Tracker
from pipeline.training import curves, head

if TYPE_CHECKING:
    from pipeline.config import Config

Compose = Callable[[list[str]], "Config"]
REFERENCES = ("current", "head only")
"""Kinds of the first trials; both always run to their end."""


def run(config: Config, words: list[str], compose: Compose, name: str) -> None:
    """Run trials until the study has as many as asked for.

    Args:
        config: The whole config.
        words: The command line that it was composed with.
        compose: Command line -> whole config.
        name: Of the study.
    """
    # A worker that is asked to stop leaves its trial to others; Optuna would fail it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_the_sweep, args=(os.getppid(),), daemon=True).start()
    count = config.finetune.replicas
    runtime.configure(config.seed, config.threads, count)
    from pipeline.training import replicas

    with replicas.scope(count):
        worker = _Worker(config, words, compose, name)
        sharing.run_trials(worker.study, worker.objective, worker.total)
        with sharing.lock_of(name):
            worker.try_soup()


def _end_with_the_sweep(parent: int) -> None:
    """Stop this worker when the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)


def total_of(config: Config, searched: Space) -> int:
    """How many trials there are in the end: no more than there are different ones on a grid."""
    asked: int = config.sweep.n_trials
    grid = config.sampler.name == "BruteForceSampler"
    if not grid:
        return asked
    if searched.combinations is None:
        raise InputError(
            "sampler grid needs lists of choices, and sweep.space has a range: give a list or a "
            "step, or set sampler.use=tpe"
        )
    return min(asked, searched.combinations)


class _Worker:
    def __init__(self, config: Config, words: list[str], compose: Compose, name: str) -> None:
        self._words, self._compose = words, compose
        self._prepared = outputs.ROOT / "prepare"
        self._store = Store(config.activations)
        self._networks = Networks(config, self._composed, self._store)
        own = self._networks[networks.OWN].body.model
        pictures = len(Manifest(self._prepared).indices("train"))
        finetune, _ = recipe.derive(config.finetune, pictures, own)
        self._config = config = replace(config, finetune=finetune)
        cuts = space.cut_choices(own, config)
        self._space = Space(cuts, space.knobs(config), tuple(self._others(config)))
        self.total = total_of(config, self._space)
        self.study = _opened(config, name, self._space, own)
        self._tracker = Tracker(config, name)

    def _composed(self, settings: dict[str, Any]) -> Config:
        return self._compose([*self._words, *space.overrides(settings)])

    def _others(self, config: Config) -> Iterator[tuple[str, str]]:
        """Further backbones and their cuts: names in `sweep.cuts` are those of the present one."""
        listed = isinstance(config.sweep.cuts, list)
        sweep = replace(config.sweep, cuts="blocks") if listed else config.sweep
        for name in networks.others(config):
            model = self._networks[name].body.model
            asked = replace(config, finetune=replace(config.finetune, cut=NONE), sweep=sweep)
            yield from ((name, cut) for cut in space.cut_choices(model, asked))

    def objective(self, trial: Trial) -> float:
        """The validation score of a trial's model."""
        try:
            return self._loss(trial)
        except tracking_store.Gone as error:  # no fault of the trial's: it is left to be taken up
            raise SystemExit(f"error: {error}") from error

    def _loss(self, trial: Trial) -> float:
        started = perf_counter()
        settings = self._space.suggest(trial)
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("code", digests.code_sha256())
        try:
            config = self._composed(settings)
        except InputError:  # a choice out of its range: tracked like any trial that fails
            with self._tracker.trial(trial.number, space.named(settings), self._config):
                raise
        hits, misses = self._store.hits, self._store.misses
        with self._tracker.trial(trial.number, space.named(settings), config) as run:
            network = self._network(settings)
            trained = self._head(config, network.features)
            first = len(curves.read(trained))

            def log(metrics: dict[str, float], epoch: int) -> None:
                run.log(metrics, epoch)
                self._report(trial, metrics["val_score"], epoch - first)

            # A trial is one training; averages come at the end.
            tuned = network.finetuner.fit(replace(config.finetune, soup=[]), trained, log)
            outcome = {
                **tuned.fitted.best,
                "best_epoch": tuned.fitted.best_epoch,
                "seconds": perf_counter() - started,
                "cache_hits": self._store.hits - hits,
                "cache_misses": self._store.misses - misses,
                "memory_mb": psutil.Process().memory_info().rss / 1e6,
            }
            run.finish(outcome)
        for name, value in outcome.items():
            trial.set_user_attr(name, value)
        return float(outcome["val_score"])

    def try_soup(self) -> None:
        """Fine-tune the average of the best trials, once, and keep what came of it."""
        trials = soup.candidates(self.study) if self._config.sweep.soup else []
        if len(trials) < 2 or soup.tried(self.study):
            return
        settings = trials[0].user_attrs["settings"]
        config, network = self._composed(settings), self._network(settings)
        averaged = replace(config.finetune, soup=soup.recipe(trials))
        trained = self._head(config, network.features)
        tuned = network.finetuner.fit(averaged, trained, lambda *_: None)
        outcome = {
            "tried": [trial.number for trial in trials],
            "kept": [trials[place].number for place in tuned.soup],
            **tuned.fitted.best,
        }
        self.study.set_user_attr(soup.ATTRIBUTE, outcome)

    def _report(self, trial: Trial, loss: float, epoch: int) -> None:
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if epoch not in known:  # a trial that was taken up again reports its first epochs twice
            trial.report(loss, epoch)
        if trial.user_attrs.get("kind") not in REFERENCES and trial.should_prune():
            raise Stopped(f"pruned after epoch {epoch}")

    def _network(self, settings: dict[str, Any]) -> Network:
        use, path = settings.get("backbone.use", networks.OWN), settings.get("backbone.path")
        return self._networks[path if use == "keras_file" and path else use]

    def _head(self, config: Config, features: Path) -> Path:
        """The trained head of a trial: trials whose head has the same settings share it."""
        asked = (config.train_head, config.head)
        inputs: dict[str, Any] = {
            "seed": config.seed,
            "threads": config.threads,
            "prepared": self._prepared,
            "features": features,
        }
        folder = workspace.work("heads", head.key(*asked, **inputs))
        with outputs.locked(folder):
            if not folder.exists():
                with outputs.replacing(folder) as aside:
                    head.train(*asked, **inputs, out=aside, log=lambda *_: None)
        return folder


def _opened(config: Config, name: str, searched: Space, model: Any) -> Study:
    """The study, with the trials that it begins with."""
    opened = study.open_study(config, name, avoid=searched.head_only)
    with sharing.lock_of(name):
        opened.set_user_attr("cuts", searched.labels)
        current = searched.current(config, model)
        sharing.add_once(opened, searched.params(config, current), REFERENCES[0])
        sharing.add_once(opened, searched.params(config, NONE), REFERENCES[1], telling=("cut",))
    return opened
