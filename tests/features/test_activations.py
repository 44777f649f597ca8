"""The activation cache: keyed by content, safe with several writers, limited in size."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, frozen_part

from pipeline.errors import InputError
from pipeline.features import cuts
from pipeline.features.activations import below
from pipeline.features.source import Source
from pipeline.features.store import Config, Store
from pipeline.finetuning.cache_decision import Cache, Costs, decide
from pipeline.networks import backbones, engines
from pipeline.networks.backbones import glyph_cnn
from pipeline.networks.engines import Engine
from pipeline.networks.keras_forward import KerasForward

pytestmark = pytest.mark.xdist_group("activations")

KERAS = engines.Config(Engine.keras)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Config(), tmp_path / "store")


@pytest.fixture(scope="module")
def source() -> Source:
    model = backbones.build(glyph_cnn.Config(), 8, 0).model
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3)).astype(np.uint8)
    frozen = frozen_part(engine=KERAS, batch_size=16)
    return Source(frozen, model, "weights", images, "images")


def fill(store: Store, name: str, rows: int = 250_000) -> np.ndarray:
    values = np.full((rows, 1), ord(name[0]), np.float32)
    return store.put({"name": name}, (1,), rows, iter([values]))


def test_a_row_does_not_depend_on_its_batch(source: Source) -> None:
    forward = KerasForward(source.model, 16)
    every = forward.all(source.images)
    assert (forward(source.images[7:8]) == every[7]).all()
    assert (forward.all(source.images, np.array([40, 3])) == every[[40, 3]]).all()


def test_what_is_stored_is_what_the_network_computes(store: Store, source: Source) -> None:
    rows = np.array([5, 1, 30])
    actual = below(store, source, "block2_pool", rows)
    assert isinstance(actual, np.memmap)
    lower, _ = cuts.split(source.model, "block2_pool")
    assert (actual == KerasForward(lower, 16).all(source.images, rows)).all()


def test_a_deeper_cut_comes_from_the_deepest_shallower_one(store: Store, source: Source) -> None:
    rows = np.arange(50)
    direct = np.array(below(Store(Config(), store.root / "x"), source, "features", rows))
    below(store, source, "block2_pool", rows)
    (entry,) = store.entries()
    used = entry.used
    time.sleep(0.05)
    images = replace(source, images=np.zeros((0, 8, 8, 3), np.uint8))  # not to be read
    assert (below(store, images, "features", rows) == direct).all()
    assert store.entries()[0].used > used, "the shallower one was read"


@pytest.mark.parametrize(
    "change", [{"batch_size": 8}, {"threads": 1}, {"backbone_sha256": "x"}, {"images_sha256": "x"}]
)
def test_everything_a_result_depends_on_is_in_the_key(
    store: Store, source: Source, change: dict[str, object]
) -> None:
    rows = np.arange(4)
    own = {name: value for name, value in change.items() if hasattr(source, name)}
    frozen = {name: value for name, value in change.items() if name not in own}
    other = replace(source, frozen=replace(source.frozen, **frozen), _passes={}, **own)
    assert source.key("block2_pool", rows) != other.key("block2_pool", rows)
    assert source.key("block2_pool", rows) != source.key("block2_pool", rows[::-1])
    below(store, source, "block2_pool", rows)
    below(store, other, "block2_pool", rows)
    assert len(store.entries()) == 2


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    store = Store(Config(max_gb=0.0025), tmp_path)
    first = fill(store, "a")
    for name in "bc":
        time.sleep(0.05)  # the file system counts time in steps
        fill(store, name)
        time.sleep(0.05)
        assert store.get({"name": "a"}) is not None  # and so used
    assert [entry.key["name"] for entry in store.entries()] == ["c", "a"]
    assert store.get({"name": "b"}) is None
    store.clear()
    assert store.entries() == []
    assert first[0, 0] == ord("a"), "who has it mapped can still read it"


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from pipeline.features.store import Config, Store
def rows():
    for n in range(20):
        time.sleep(float(sys.argv[2]))
        yield np.full((1000, 4), n, np.float32)
found = Store(Config(), Path(sys.argv[1])).put({"k": 1}, (4,), 20000, rows())
assert found.shape == (20000, 4) and (found[::1000, 0] == np.arange(20)).all()
"""


def writer(root: Path, pause: float = 0.02) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(root), str(pause)])


@pytest.mark.slow
def test_several_writers_write_once(tmp_path: Path) -> None:
    writers = [writer(tmp_path) for _ in range(4)]
    assert [item.wait() for item in writers] == [0] * 4
    assert len(Store(Config(), tmp_path).entries()) == 1
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.slow
def test_a_killed_writer_leaves_nothing_half_written(tmp_path: Path) -> None:
    killed = writer(tmp_path, 0.2)
    while not list(tmp_path.glob(".*.partial/*.npy")):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert Store(Config(), tmp_path).entries() == []
    assert writer(tmp_path, 0).wait() == 0
    assert len(Store(Config(), tmp_path).entries()) == 1


def decided(mode: str = "auto", **change: float) -> tuple[bool, str]:
    usual = {
        "needed_bytes": 10**9,
        "free_bytes": 10**11,
        "max_bytes": 10**10,
        "memory_bytes": 10**10,
        "flops_below": 0.8,
        "epochs": 10,
    }
    return decide(Cache(mode), Costs(**{**usual, **change}))


@pytest.mark.parametrize(
    ("mode", "change", "cached", "why"),
    [
        ("auto", {}, True, "1.00 GB, epochs up to 2.1x faster"),
        ("auto", {"flops_below": 0.0}, False, "0% of the work is below the cut: nothing to save"),
        ("auto", {"needed_bytes": 2e10}, False, "they need 20.00 GB, but 10.00 GB are available"),
        ("auto", {"free_bytes": 10**8}, False, "they need 1.00 GB, but 0.10 GB are available"),
        ("auto", {"memory_bytes": 10**8}, True, "read from disk because memory is too small"),
        ("never", {}, False, "finetune.cache=never"),
        ("always", {"flops_below": 0.0}, True, "1.00 GB"),
    ],
)
def test_the_decision_and_its_reason(
    mode: str, change: dict[str, float], cached: bool, why: str
) -> None:
    actual, message = decided(mode, **change)
    assert actual == cached
    assert why in message


def test_always_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(InputError, match=r"needs 20\.00 GB, but 10\.00 GB are available: free"):
        decided("always", needed_bytes=2e10)


def test_the_command_lists_and_clears(clone: Path, run: Run) -> None:
    command = [sys.executable, "-m", "pipeline", "cache"]
    message = run(clone, *command).stdout
    assert "glyph_cnn at features, 8 px" in message
    assert "glyph_cnn at block2_pool, 8 px" in message
    assert run(clone, *command, "clear").stdout.strip().startswith("0.0 MB")
    wrong = run(clone, *command, "drop")
    assert wrong.returncode == 1
    assert "choose from 'list', 'clear'" in wrong.stderr


def test_cached_or_not_the_model_is_the_same_file(clone: Path, run: Run) -> None:
    before = (clone / "outputs/finetune/model.keras").read_bytes()
    stage = [sys.executable, "-m", "pipeline", "finetune", "tracking.enabled=false"]
    done = run(clone, *stage, "finetune.cache=never")
    assert "not caching activations below the cut: finetune.cache=never" in done.stdout
    assert (clone / "outputs/finetune/model.keras").read_bytes() == before


def test_the_cut_table_needs_no_weights(clone: Path, run: Run) -> None:
    done = run(clone, sys.executable, "-m", "pipeline", "cuts", "backbone.use=resnet50")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("conv5_block2_out")]
    assert line.split()[1:3] == ["164", "conv5_block2"]
    assert line.split()[-4:] == ["401.4", "94.4%", "81.0%", "6.6x"]
