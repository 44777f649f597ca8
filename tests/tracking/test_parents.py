"""Names of runs: what differs from the first one with the same data and network."""

from types import SimpleNamespace
from typing import Any

from pipeline.tracking import parents

SETTINGS: dict[str, Any] = {
    "data.use": "digits",
    "backbone.use": "glyph_cnn",
    "seed": 0,
    "finetune.learning_rate": 1e-3,
    "finetune.cut": "auto",
}


def first(**tags: str) -> Any:
    params = {key: str(value) for key, value in SETTINGS.items() if value != "auto"}
    return SimpleNamespace(data=SimpleNamespace(params=params, tags={"data.md5": "abc", **tags}))


def test_the_first_is_named_after_data_and_network() -> None:
    assert parents.name("digits", SETTINGS, "abc", None) == "digits glyph_cnn"


def test_others_are_named_after_what_differs() -> None:
    other = {**SETTINGS, "seed": 3, "finetune.learning_rate": 1e-2}
    message = parents.name("digits", other, "abc", first())
    assert message == "seed=3, learning_rate=0.01 (digits)"


def test_long_values_and_many_are_cut() -> None:
    original = first()
    original.data.params |= {f"x.{n}": "" for n in range(6)}
    other = {**SETTINGS, **{f"x.{n}": "y" * 90 for n in range(6)}}
    message = parents.name("digits", other, "abc", original)
    assert message == "0=yyyyyyyyyyyyyyy…, 1=yyyyyyyyyyyyyyy…,…"


def test_other_data_and_other_code() -> None:
    assert parents.name("digits", SETTINGS, "0123456789", first()) == "data 0123456 (digits)"
    assert parents.name("digits", SETTINGS, "abc", first()) == "other code (digits)"
