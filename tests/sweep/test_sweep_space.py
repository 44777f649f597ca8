"""Search space of a sweep: cuts in order, ranges, choices, and mistakes in them."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from pipeline import config
from pipeline.errors import InputError
from pipeline.networks import backbones
from pipeline.networks.backbones import glyph_cnn, keras_application
from pipeline.storage import outputs
from pipeline.sweep import networks, space
from pipeline.sweep.space import Space

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Composes the default's config with words of the command line."""
    monkeypatch.chdir(PROJECT)
    return lambda *words: config.compose(list(words))


def test_cuts_are_ordered_and_told_apart_by_what_learns(composed: Any) -> None:
    model = backbones.build(glyph_cnn.Config(), 8, 0).model
    blocks = space.cut_choices(model, composed())
    assert blocks == ("block1_conv1", "block2_conv1", "block3_conv1", "none")
    every = space.cut_choices(model, composed("sweep.cuts=all"))
    assert set(blocks) <= set(every)
    assert len(every) > len(blocks)
    listed = space.cut_choices(model, composed("sweep.cuts=[block3_conv2,{blocks: 1},none]"))
    assert listed == ("block2_conv1", "block3_conv1", "block3_conv2", "none"), "the present, too"
    again = space.cut_choices(model, composed("sweep.cuts=[block3_conv1,{blocks: 1}]"))
    assert again == ("block2_conv1", "block3_conv1", "none"), "two names for one cut"
    with pytest.raises(InputError, match=r"finetune\.cut=blok is not a layer"):
        space.cut_choices(model, composed("sweep.cuts=[blok]"))
    with pytest.raises(InputError, match=r"sweep\.cuts must be blocks, all, or a list of cuts"):
        space.cut_choices(model, composed("sweep.cuts=some"))


def test_the_blocks_of_a_real_network(composed: Any) -> None:
    network = keras_application.Config(name="MobileNetV2", weights=None)
    model = backbones.build(network, 96, 0).model
    actual = space.cut_choices(model, composed("finetune.cut=block_13_expand"))
    assert 15 < len(actual) < 22
    assert actual.index("block_3_expand") < actual.index("block_13_expand") < actual.index("none")


def test_the_present_settings_always_belong_to_the_space(composed: Any) -> None:
    wide = composed("finetune.learning_rate=0.5", "+sweep.space.head={dropout: [0.1, 0.2]}")
    knobs = space.knobs(wide)
    rate = knobs["finetune.learning_rate"]
    assert isinstance(rate, optuna.distributions.FloatDistribution)
    assert (rate.low, rate.high, rate.log) == (1e-5, 0.5, True)
    assert knobs["head.dropout"] == optuna.distributions.CategoricalDistribution([0.1, 0.2, 0.0])
    searched = Space(("a", "b", "none"), knobs)
    params = {"cut": 1, "finetune.learning_rate": 0.5, "head.dropout": 0.0}
    assert searched.params(wide, "b") == params
    settings = searched.suggest(optuna.trial.FixedTrial(params))
    expected = {"finetune.cut": "b", "finetune.learning_rate": 0.5, "head.dropout": 0.0}
    assert settings == expected
    words = space.overrides({**settings, "head.units": [64, 32], "head.use": "mlp"})
    again = composed(*words)
    assert again.finetune.cut == "b"
    assert list(again.head.units) == [64, 32]


def test_how_many_different_trials(composed: Any) -> None:
    cuts = ("a", "b", "none")
    rate = "sweep.space.finetune.learning_rate"
    grid = [f"~{rate}", f"+{rate}=[1e-4, 1e-3]"]
    grid.append("+sweep.space.finetune.epochs={low: 10, high: 30}")
    assert Space(cuts, space.knobs(composed(*grid))).combinations == 2 * 2 * 21 + 1
    assert Space(cuts, space.knobs(composed())).combinations is None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+sweep.space.finetune.cut=[a]", "cannot contain finetune.cut: it is always varied"),
        ("+sweep.space.finetune.monitor=[accuracy]", "trials are compared by it"),
        ("+sweep.space.prepare={fit: [pad]}", "got prepare.fit: to vary others, edit"),
        ("+sweep.space.finetune.rate=[1]", "unknown setting finetune.rate in sweep.space"),
        ("+sweep.space.seed=3", "nested like params.yaml.* got seed: 3"),
        ("sweep.space.finetune.learning_rate=3", "must be a list of choices, or {low, high}"),
        ("+sweep.space.finetune.epochs={low: 5}", "must be a list of choices, or {low, high}"),
        ("+sweep.space.finetune.epochs={low: 40, high: 35}", "must be a list of choices"),
        ("+sweep.space.head={units: {low: 1, high: 2}}", "must be a list of choices"),
        ("+sweep.space.head={dropout: [0.1, 1.5]}", "head.dropout must be at least 0 and below 1"),
        ("sweep.space.finetune.learning_rate.low=-1", "must be above 0, got -1"),
        ("+sweep.space.finetune.batch_norm=[froze]", "must be of frozen, train, got 'froze'"),
        ("+sweep.space.backbone=[mobilnet_v2]", "got 'mobilnet_v2': did you mean mobilenet_v2"),
        ("+sweep.space.backbone=[no/folder]", "KerasHub folders, got 'no/folder'"),
    ],
)
def test_mistakes_are_told_in_one_line(composed: Any, word: str, message: str) -> None:
    searched = composed(word)
    read = networks.others if "backbone" in word else space.knobs
    with pytest.raises(InputError, match=message) as caught:
        read(searched)
    assert "\n" not in str(caught.value)


def test_what_makes_another_study(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)

    def name(*words: str) -> str:
        composed = config.compose(words)
        made = (outputs.ROOT / "prepare", outputs.ROOT / "extract_features")
        return space.study_name(composed, list(space.knobs(composed)), *made)

    searched = "finetune.learning_rate=1e-6"
    alongside = (
        "sweep.n_trials=99",
        "sweep.workers=2",
        "sweep.sampler=random",
        "tracking.enabled=false",
    )
    assert {name(), name(searched), *map(name, alongside)} == {name()}
    others = ("sweep.cuts=all", "finetune.epochs=2", "train_head.epochs=2", "seed=1")
    assert len({name(), *map(name, others)}) == 1 + len(others)
    assert name("sweep.study=mine").startswith("mine-")
