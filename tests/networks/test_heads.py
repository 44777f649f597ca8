"""Every head in conf/head builds and returns probabilities; wrong settings give clear errors."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import config
from pipeline.errors import InputError
from pipeline.networks import heads
from pipeline.settings import check

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("choice", [p.stem for p in (PROJECT / "conf" / "head").glob("*.yaml")])
def test_a_head_gives_probabilities(choice: str, cwd: Path) -> None:
    (cwd / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    head = heads.build(config.compose([f"head.use={choice}"]).head, 12, 5)
    actual = head.predict(np.random.default_rng(0).normal(size=(4, 12)), verbose=0)
    assert actual.shape == (4, 5)
    np.testing.assert_allclose(actual.sum(axis=1), 1, rtol=1e-5)
    assert head.layers[-1].name == "probabilities"


def test_a_size_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"head.units must be at least 1, got \[0\]"):
        check(heads.Config(use="mlp", units=[0]), "head")
    with pytest.raises(InputError, match=r"head.dropout must be at least 0 and below 1, got 1.0"):
        check(heads.Config(use="mlp", dropout=1.0), "head")
