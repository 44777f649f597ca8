"""Every head in conf/head builds, ends in probabilities and can be wrong only in clear words."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import config
from pipeline.errors import InputError
from pipeline.networks import heads

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("choice", [p.stem for p in (PROJECT / "conf" / "head").glob("*.yaml")])
def test_a_head_gives_probabilities(choice: str, cwd: Path) -> None:
    (cwd / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    head = heads.build(config.compose([f"head.use={choice}"]).head, 12, 5)
    found = head.predict(np.random.default_rng(0).normal(size=(4, 12)), verbose=0)
    assert found.shape == (4, 5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert head.layers[-1].name == "probabilities"


def test_a_size_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"got \[0\] and 0.0"):
        heads.build(heads.Config(units=[0]), 12, 5)
    with pytest.raises(InputError, match=r"dropout in \[0, 1\), got \[\] and 1.0"):
        heads.build(heads.Config(dropout=1.0), 12, 5)
