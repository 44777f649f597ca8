"""One config from params.yaml, conf/ and the command line; every mistake gives one clear line."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import config, runner
from pipeline.errors import InputError

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def params(cwd: Path) -> Path:
    path = cwd / "params.yaml"
    path.write_text((PROJECT / "params.yaml").read_text())
    return path


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_later_layers_win(params: Path) -> None:
    assert config.compose(["head.use=mlp"]).head.units == [128]
    assert config.compose(["head.use=linear"]).head.units == []
    edited(params, "  use: linear", "  units: [7]\n  use: linear")
    assert config.compose(["head.use=linear"]).head.units == [7]
    assert config.compose(["head.use=linear", "head.units=[9]"]).head.units == [9]


def test_numbers_are_read_as_dvc_reads_them(params: Path) -> None:
    edited(params, "learning_rate: 1e-3    #", "learning_rate: 3e-5    #")
    assert config.compose().finetune.learning_rate == 3e-5
    assert config.compose(["finetune.cut=100"]).finetune.cut == 100


def test_reading_a_config_imports_no_tensorflow(project: Path) -> None:
    code = (
        "import sys; from pipeline import config; config.compose(); "
        "sys.exit(bool({'tensorflow', 'keras', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)


MISTAKES = [
    (
        "prepare.image_siz=3",
        "unknown setting prepare.image_siz",
        "did you mean prepare.image_size?",
    ),
    (
        "extract_features.batch_size=big",
        "extract_features.batch_size must be an integer, got 'big'",
        "",
    ),
    ("sweep.storage=${oc.env:NO_SUCH}", "needs the environment variable NO_SUCH", "export NO_S"),
    ("prepare.image_size=big", "prepare.image_size must be a number or auto", "got 'big'"),
    ("prepare.fit=x", "prepare.fit", "must be one of crop, squash, pad, got 'x'"),
    ("evaluate.metric=x", "evaluate.metric must be one of auto, accuracy, log_loss", "got 'x'"),
    ("sweep.study=a/b", "sweep.study may have letters, digits", "it names a folder in sweeps/"),
    ("prepare=3", "prepare is a section", "got 3"),
    ("foo=1", "unknown setting foo", "params.yaml takes activations, augment"),
    ("data.foo=1", "unknown setting data.foo", "data takes depth"),
    ("data.use=digit", "data.use must be one of", "got 'digit': did you mean digits?"),
    ("backbone.use=zzz", "backbone.use must be one of", "or add conf/backbone/zzz.yaml"),
    ("backbone.use=keras_application", "backbone.name has no value ('???')", "backbone.name=..."),
    ("finetune.cut=???", "finetune.cut has no value ('???')", "set it in params.yaml"),
    ("nonsense", "the form section.key=value, got 'nonsense'", "add --help"),
    ("=3", "got '=3'", ""),
]


@pytest.mark.usefixtures("params")
@pytest.mark.parametrize(("word", "rule", "remedy"), MISTAKES)
def test_a_mistake_on_the_command_line(word: str, rule: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        config.compose([word])
    message = str(caught.value)
    assert rule in message
    assert remedy in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("image_size: 8", "image_siz: 8", "unknown setting prepare.image_siz"),
        (
            "batch_size: 32",
            "batch_size: big",
            "extract_features.batch_size must be an integer, got 'big'",
        ),
        ("seed: 0", "sed: 0", "unknown setting sed: did you mean seed?"),
        ("seed: 0", "seed: [", "params.yaml must be YAML"),
        ("use: digits", "use: nope", "data.use must be one of archive"),
        ("  use: linear", "  use: linear\n  unit: 3", "unknown setting head.unit"),
        ("cut: block", "cut: ??? # block", "finetune.cut has no value ('???')"),
    ],
)
def test_a_mistake_in_params_yaml(params: Path, before: str, after: str, message: str) -> None:
    edited(params, before, after)
    with pytest.raises(InputError) as caught:
        config.compose()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_params_yaml(cwd: Path) -> None:
    with pytest.raises(InputError, match=r"no params.yaml in .*: change to the project's folder"):
        config.compose()


@pytest.mark.usefixtures("params")
def test_several_runs_at_once_are_refused() -> None:
    with pytest.raises(InputError, match="dvc exp run --queue"):
        runner.run("prepare", ["--multirun", "seed=1,2"])
