"""Links: one file in several places."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.features.store import Config, Store
from pipeline.storage import arrays


def test_content_is_shared_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"content")
    how = arrays.share(source, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    if how == "linked":
        assert source.samefile(tmp_path / "b")
        assert not (tmp_path / "b").stat().st_mode & 0o222, "nobody writes to both by mistake"

    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    arrays.share(source, tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"content"
    assert not source.samefile(tmp_path / "c")


def test_the_store_refuses_what_it_can_never_hold(tmp_path: Path) -> None:
    store = Store(Config(max_gb=0.001), tmp_path)
    rows = np.zeros((100, 1000), np.float32)
    store.put({"cut": "small"}, (1000,), 100, iter([rows]))
    with pytest.raises(InputError, match=r"is too small for 1,000 images at big, 0\.004 GB"):
        store.put({"cut": "big"}, (1000,), 1000, iter([]))
    assert store.get({"cut": "small"}) is not None, "and removes nothing for it"
