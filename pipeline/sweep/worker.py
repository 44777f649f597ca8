"""A process that runs trials: draw settings, train the head, fine-tune, validate.

One backbone, one cache and one traced model per cut serve all trials of the process. The test split
is never read.
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
from typing import Any

import numpy as np
import psutil
from optuna import Study, Trial

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError, Stopped
from pipeline.features.store import Store
from pipeline.finetuning import recipe
from pipeline.networks import runtime
from pipeline.sections import Sampler
from pipeline.stages import train_head
from pipeline.storage import curves, digests, outputs, workspace
from pipeline.storage.outputs import Folders
from pipeline.sweep import networks, sharing, soup, space, study
from pipeline.sweep.networks import Network, Networks
from pipeline.sweep.space import NONE, Space
from pipeline.tracking import store as tracking_store
from pipeline.tracking.sweep_runs import Tracker, TrialRun

Compose = Callable[[list[str]], "Config"]
REFERENCES = ("current", "head only")
"""Kinds of the first trials; both always run to completion."""


def run(config: Config, words: list[str], compose: Compose, name: str) -> None:
    """Run trials until the study is complete."""
    # A worker that is asked to stop leaves its trial to others; Optuna would fail it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_the_sweep, args=(os.getppid(),), daemon=True).start()
    count = config.finetune.replicas
    runtime.configure(config.seed, config.threads, count)
    from pipeline.training import steps

    with steps.scope(count):
        worker = _Worker(config, words, compose, name)
        patience = config.sweep.patience
        sharing.run_trials(worker.study, worker.objective, worker.total, patience)
        with sharing.lock_of(name):
            worker.try_soup()


def _end_with_the_sweep(parent: int) -> None:
    """Stop this worker when the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)


def total_of(config: Config, searched: Space) -> int:
    """Return the total number of trials, limited to the different ones on a grid."""
    requested: int = config.sweep.n_trials
    if config.sweep.sampler != Sampler.grid:
        return requested
    if searched.combinations is None:
        raise InputError(
            "sweep.sampler=grid needs lists of choices, but sweep.space has a range: use a list or "
            "a step, or set sweep.sampler=tpe"
        )
    return min(requested, searched.combinations)


class _Worker:
    def __init__(self, config: Config, words: list[str], compose: Compose, name: str) -> None:
        self._words, self._compose = words, compose
        self._store = Store(config.activations)
        self._networks = Networks(config, self._composed, self._store)
        own = self._networks[networks.Key()].body.model
        data = Manifest(outputs.ROOT / "prepare")
        errors = recipe.Errors.of(outputs.ROOT / "train_head", len(data.indices("val")))
        count, rate = len(data.indices("train")), data.task.rate
        finetune, _ = recipe.derive(config.finetune, count, own, errors, rate)
        prepare = replace(config.prepare, image_size=data.image_size)
        self._config = config = replace(config, finetune=finetune, prepare=prepare)
        self._names = config.sweep.objectives
        cuts = space.cut_choices(own, config)
        self._space = Space(cuts, space.knobs(config), tuple(self._others(config)))
        self.total = total_of(config, self._space)
        self.study = _opened(config, name, self._space, own)
        self.study.set_user_attr(study.TOTAL, self.total)
        self._tracker = Tracker(config, name)

    def _composed(self, settings: dict[str, Any]) -> Config:
        return self._compose([*self._words, *space.overrides(settings)])

    def _others(self, config: Config) -> Iterator[tuple[str, str]]:
        """List further backbones with their cuts: names in `sweep.cuts` are the present one's."""
        listed = isinstance(config.sweep.cuts, list)
        sweep = replace(config.sweep, cuts="blocks") if listed else config.sweep
        for name in networks.others(config):
            model = self._networks[networks.Key(name)].body.model
            other = replace(config, finetune=replace(config.finetune, cut=NONE), sweep=sweep)
            yield from ((name, cut) for cut in space.cut_choices(model, other))

    def objective(self, trial: Trial) -> tuple[float, ...]:
        """Evaluate a trial; returns a value for each objective."""
        try:
            return self._values(trial)
        except tracking_store.Gone as error:  # not the trial's fault: another worker takes over
            raise SystemExit(f"error: {error}") from error

    def _values(self, trial: Trial) -> tuple[float, ...]:
        started = perf_counter()
        settings = self._space.suggest(trial)
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("code", digests.code_sha256())
        try:
            config = self._composed(settings)
        except InputError:  # an invalid choice: tracked like any trial that fails
            with self._tracker.trial(trial.number, space.named(settings), self._config):
                raise
        hits, misses = self._store.hits, self._store.misses
        with self._tracker.trial(trial.number, space.named(settings), config) as run:
            evaluated = self._folds if config.sweep.folds > 1 else self._once
            outcome = {
                **evaluated(trial, settings, config, run),
                **self._of_network(settings),
                "seconds": perf_counter() - started,
                "cache_hits": self._store.hits - hits,
                "cache_misses": self._store.misses - misses,
                "memory_mb": psutil.Process().memory_info().rss / 1e6,
            }
            run.finish(outcome)
        for name, value in outcome.items():
            trial.set_user_attr(name, value)
        return tuple(float(outcome[name]) for name in self._names)

    def _once(
        self, trial: Trial, settings: dict[str, Any], config: Config, run: TrialRun
    ) -> dict[str, float]:
        """Train once, and evaluate on the validation split."""
        network = self._networks[self._key(settings)]
        trained = self._head(config, network)
        first = len(curves.read(trained))

        def log(metrics: dict[str, float], epoch: int) -> None:
            run.log(metrics, epoch)
            self._report(trial, metrics, epoch - first)

        return self._fit(network, config, trained, log)

    def _folds(
        self, trial: Trial, settings: dict[str, Any], config: Config, run: TrialRun
    ) -> dict[str, float]:
        """Train once per fold; a trial's numbers are means over the folds."""
        results: list[dict[str, float]] = []
        for fold in range(config.sweep.folds):
            network = self._networks[self._key(settings, fold)]
            trained = self._head(config, network)
            results.append(self._fit(network, config, trained, lambda *_: None))
            scores = {k: value for k, value in results[-1].items() if k.startswith("val_")}
            run.log(scores, fold)
            self._report(trial, results[-1], fold)
        return {key: float(np.mean([result[key] for result in results])) for key in results[0]}

    def _fit(
        self,
        network: Network,
        config: Config,
        trained: Path,
        log: Callable[[dict[str, float], int], None],
    ) -> dict[str, float]:
        # A trial is one training; averages come at the end.
        tuned = network.finetuner.fit(replace(config.finetune, soup=[]), trained, log)
        return {**tuned.fitted.best, "best_epoch": tuned.fitted.best_epoch}

    def _of_network(self, settings: dict[str, Any]) -> dict[str, float]:
        """Return objectives of the network itself, measured once per study."""
        key = self._key(settings)
        values: dict[str, float] = {}
        if "parameters" in self._names:
            values["parameters"] = float(self._networks[key].body.model.count_params())
        if "ms_per_image" in self._names:
            attribute = f"ms {key.name or self._config.backbone.use} {key.size_px}"
            with sharing.lock_of(f"{self.study.study_name}.ms"):
                measured = self.study.user_attrs.get(attribute)
                if measured is None:
                    measured = self._networks[key].ms_per_image(self._config)
                    self.study.set_user_attr(attribute, measured)
            values["ms_per_image"] = measured
        return values

    def try_soup(self) -> None:
        """Fine-tune the average of the best trials once, and store the result."""
        wanted = self._config.sweep.soup and self._config.sweep.folds == 1
        trials = soup.candidates(self.study, self._names) if wanted else []
        if len(trials) < 2 or soup.result(self.study, self._names):
            return
        settings = trials[0].user_attrs["settings"]
        config, network = self._composed(settings), self._networks[self._key(settings)]
        averaged = replace(config.finetune, soup=soup.recipe(trials))
        trained = self._head(config, network)
        tuned = network.finetuner.fit(averaged, trained, lambda *_: None)
        outcome = {
            "tried": [trial.number for trial in trials],
            "used": [trials[place].number for place in tuned.soup],
            **tuned.fitted.best,
        }
        self.study.set_user_attr(soup.ATTRIBUTE, outcome)

    def _report(self, trial: Trial, metrics: dict[str, float], step: int) -> None:
        if len(self._names) > 1:  # the Pareto front is only known at the end
            return
        reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if step not in reported:  # a requeued trial reports its first steps again
            trial.report(metrics[self._names[0]], step)
        if trial.user_attrs.get("kind") not in REFERENCES and trial.should_prune():
            raise Stopped(
                f"pruned after {'fold' if self._config.sweep.folds > 1 else 'epoch'} {step}"
            )

    def _key(self, settings: dict[str, Any], fold: int | None = None) -> networks.Key:
        use, path = settings.get("backbone.use", networks.OWN), settings.get("backbone.path", "")
        own_file = path.startswith("conf/")
        return networks.Key(use if own_file else path, settings.get(networks.SIZE), fold)

    def _head(self, config: Config, network: Network) -> Path:
        """Return the trained head of a trial, shared by trials with the same head settings."""
        values = (config.train_head, config.head, config.seed, config.threads)
        read = Folders(Path(), network.prepared, network.features)
        folder = workspace.work("heads", train_head.key(*values, read))
        return outputs.made(
            folder, lambda aside: train_head.run(*values, replace(read, out=aside), lambda *_: None)
        )


def _opened(config: Config, name: str, searched: Space, model: Any) -> Study:
    """Open the study, with its first trials."""
    opened = study.open_study(config.sweep, config.seed, name, avoid=searched.head_only)
    with sharing.lock_of(name):
        opened.set_user_attr("cuts", searched.labels)
        current = searched.current(config, model)
        sharing.add_once(opened, searched.params(config, current), REFERENCES[0])
        sharing.add_once(opened, searched.params(config, NONE), REFERENCES[1], identifying=("cut",))
    return opened
