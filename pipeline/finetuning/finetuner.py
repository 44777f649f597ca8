"""Fine-tune a backbone above a cut, once or many times, on cached activations below it.

backbone + trained head + settings -> the head, and in place the backbone, after the best epoch.
Earlier fine-tunings do not affect the result: weights, optimizer and seeds start anew, and only
TensorFlow's traces are reused.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import NDArray

from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.features import activations, augmentation
from pipeline.features.activations import Computed
from pipeline.features.source import FrozenPart, Source
from pipeline.features.store import Store
from pipeline.finetuning import recipe, soup
from pipeline.finetuning.cache_decision import Costs, decide
from pipeline.finetuning.settings import BatchNorm, Config, Precision
from pipeline.storage import curves, derived, tables, workspace
from pipeline.storage.derived import Derived
from pipeline.storage.digests import file_sha256
from pipeline.training.examples import Examples, Rows, Views

if TYPE_CHECKING:
    import keras

    from pipeline.features.cuts import Cut
    from pipeline.networks.backbones import Backbone
    from pipeline.training.fitting import Fitted

_KEPT_TRACES = 12


@dataclass(frozen=True)
class Tuned:
    """The result of fine-tuning.

    Attributes:
        head: (B, D) -> (B, K), trained together with the backbone.
        fitted: Curve, best epoch and its metrics.
        derived: Full name of each setting that was `auto` -> derived value.
        soup: Trainings whose weights were averaged: 0 is the section's own, 1 the first of
            `finetune.soup`; best first.
    """

    head: keras.Model
    fitted: Fitted
    derived: dict[str, Derived]
    soup: tuple[int, ...] = (0,)


class Finetuner:
    """Fine-tunes one backbone on one dataset, any number of times.

    Args:
        body: The backbone with its pre-trained weights.
        prepared: Output of prepare.
        store: Cache for activations.
        frozen: Settings of the forward pass below the cut; its seed is also used for training.

    Attributes:
        data: The prepared dataset.
        model: The backbone: (B, H, W, 3) -> (B, D).
    """

    def __init__(self, body: Backbone, prepared: Path, store: Store, frozen: FrozenPart) -> None:
        self.data = Manifest(prepared)
        self._rows = {split: self.data.indices(split) for split in ("train", "val")}
        augment, _ = frozen.augment.derive(len(self._rows["train"]))
        frozen = replace(frozen, augment=augment)
        self._body, self._store, self._augment, self._seed = body, store, augment, frozen.seed
        self.model = body.model
        self._start = [variable.numpy() for variable in body.model.variables]
        self._traced: OrderedDict[str, tuple[keras.Model, keras.Model]] = OrderedDict()
        self._source = Source.of(frozen, body, self.data)
        self._key = {
            **self._source.frozen.key(body),
            "images": self.data.images_sha256,
            "manifest": file_sha256(prepared / "manifest.csv"),
        }

    def fit(
        self, config: Config, head: Path, log: Callable[[dict[str, float], int], None]
    ) -> Tuned:
        """Fine-tune from the pre-trained backbone and a trained head.

        Args:
            config: Section `finetune`.
            head: Output of train_head.
            log: Called with the metrics and the number of every epoch.

        Raises:
            InputError: The backbone has no such cut, nothing would be left to train, or the head
                belongs to another backbone.
        """
        import keras

        from pipeline.features import cuts
        from pipeline.training import fitting

        model = self._body.model
        top = keras.saving.load_model(head / "head.keras", compile=False)
        if model.output_shape != top.input_shape:
            raise InputError(
                f"the head in {head} takes {top.input_shape[1]} features, but {self._body.name} "
                f"returns {model.output_shape[1]}: run dvc repro to update the outputs"
            )
        for variable, value in zip(model.variables, self._start, strict=True):
            variable.assign(value)
        if config.head_only:
            model.trainable = False
            summary = tables.read_json(head / "summary.json")
            names = ("val_loss", f"val_{self.data.task.quality}", "val_score", "temperature")
            best = {name: summary[name] for name in names}
            return Tuned(top, fitting.Fitted([], 0, best), {})
        errors = recipe.Errors.of(head, len(self._rows["val"]))
        rate = self.data.task.rate
        config, chosen = recipe.derive(config, len(self._rows["train"]), model, errors, rate)
        derived.report(chosen)
        batch_norm = config.batch_norm == BatchNorm.train
        cut = cuts.resolve(model, config.cut, batch_norm)
        cuts.freeze(model, cut.trainable, batch_norm)
        cached = self._decide(config, cut)
        trained, top = self._trainable(cut, config, top)
        train, val = self._examples(config, cut, cached)
        first, begin = len(curves.read(head)), [v.numpy() for v in trained.variables]
        key = {**self._key, "head": file_sha256(head / "head.keras")}

        def fitted(settings: Config, log: Callable[[dict[str, float], int], None]) -> Fitted:
            for variable, value in zip(trained.variables, begin, strict=True):
                variable.assign(value)
            work = workspace.work("finetune", {**key, "config": asdict(settings)})
            session = fitting.Session(self._seed, work, log, first)
            return fitting.fit(trained, train, val, settings, session)

        alone = replace(config, soup=[])
        result = fitted(alone, log)
        if config.soup:
            parts = [([v.numpy() for v in trained.variables], result.best)]
            for changes in config.soup:
                other = fitted(replace(alone, **changes), lambda *_: None)
                parts.append(([v.numpy() for v in trained.variables], other.best))
            best, averaged = soup.cook(trained, parts, lambda: fitting.judge(trained, val, alone))
            print(f"averaged the weights of trainings {', '.join(map(str, averaged))}", flush=True)
            return Tuned(top, replace(result, best=best), chosen, tuple(averaged))
        return Tuned(top, result, chosen)

    def _trainable(
        self, cut: Cut, config: Config, top: keras.Model
    ) -> tuple[keras.Model, keras.Model]:
        """Return the trainable part above a cut, and the head in it with the weights of `top`."""
        from pipeline.features import cuts
        from pipeline.networks import heads

        batch_norm = config.batch_norm == BatchNorm.train
        name = json.dumps([cut.at, cut.trainable, batch_norm, top.get_config()])
        if name not in self._traced:
            _, upper = cuts.split(self._body.model, cut.at)
            self._traced[name] = heads.join(upper, top, "above_the_cut"), top
            if len(self._traced) > _KEPT_TRACES:
                self._traced.popitem(last=False)
                gc.collect()
        self._traced.move_to_end(name)
        trained, own = self._traced[name]
        own.set_weights(top.get_weights())
        return trained, own

    def _examples(self, config: Config, cut: Cut, cached: bool) -> tuple[Examples, Examples]:
        """Return training and validation examples: activations at the cut, cached or not."""
        data, train, val = self.data, self._rows["train"], self._rows["val"]
        every = np.arange(len(train))

        def inputs(source: Source, rows: NDArray[np.int64]) -> Any:
            if not cached:
                return Computed(self._source.forward(cut.at), Rows(source.images, rows))
            return activations.below(self._store, source, cut.at, rows, str(config.precision))

        if self._augment.fresh:
            augmenter = augmentation.Augmenter(self._augment)
            fresh = augmentation.Fresh(Rows(data.images, train), augmenter, self._seed)
            values: Any = Computed(self._source.forward(cut.at), fresh)
        else:
            views = activations.views_of(self._store, self._source, train)
            values = inputs(self._source, train)
            if views:
                others = [inputs(view, every) for view in views]
                values = Views([values, *others], self._seed)
        return (
            Examples(values, every, data.targets[train], data.task),
            Examples(inputs(self._source, val), np.arange(len(val)), data.targets[val], data.task),
        )

    def _decide(self, config: Config, cut: Cut) -> bool:
        """Decide if activations are cached, and print why."""
        from pipeline.features import cuts

        name = self._body.model.name
        print(
            f"trains from {cut.trainable[0]} on: {len(cut.trainable)} layers of {name}", flush=True
        )
        (point,) = [p for p in cuts.describe(self._body.model) if p.name == cut.at]
        images = len(self._rows["train"]) * self._augment.count + len(self._rows["val"])
        half = config.precision == Precision.float16
        self._store.root.mkdir(parents=True, exist_ok=True)
        costs = Costs(
            needed_bytes=images * point.bytes_per_image // (2 if half else 1),
            free_bytes=shutil.disk_usage(self._store.root).free,
            max_bytes=self._store.max_bytes,
            memory_bytes=psutil.virtual_memory().available,
            flops_below=point.flops_below,
            epochs=config.epochs,
            views=self._augment.count,
            fresh=self._augment.fresh,
        )
        cached, why = decide(config.cache, costs)
        if cached and half:
            why += "; rounded to float16, which affects training"
        verb = "caching" if cached else "not caching"
        print(f"{verb} activations below the cut: {why}", flush=True)
        return cached
