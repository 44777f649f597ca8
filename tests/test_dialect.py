"""params.yaml, `dvc exp run -S` and the command line read the same words as the same values."""

from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import InputError

PARAMS = """
data: {{use: folder, path: {path}, ignore: {ignore}, labels: {labels}}}
backbone: {{use: glyph_cnn, path: x}}
head: {{use: linear}}
seed: {seed}
"""


def write(path: str = "x", ignore: str = "[]", labels: str = "{}", seed: str = "0") -> None:
    text = PARAMS.format(path=path, ignore=ignore, labels=labels, seed=seed)
    Path("params.yaml").write_text(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", "on"), ("no", "no"), ("y", "y"), ('"10"', "10"), ("a-b", "a-b"), ("1e", "1e")],
)
def test_words_of_yaml_1_1_are_words(cwd: Path, text: str, value: str) -> None:
    write(ignore=f"[{text}]", path=text)
    composed = config.compose()
    assert composed.data.ignore == [value]
    assert composed.data.path == value
    write()
    composed = config.compose([f"data.ignore=[{text}]", f"data.path={text}"])
    assert composed.data.ignore == [value]
    assert composed.data.path == value


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("7", 7)])
def test_numbers_are_the_same_both_ways(cwd: Path, text: str, value: int) -> None:
    write(seed=text)
    assert config.compose().seed == value
    write()
    assert config.compose([f"seed={text}"]).seed == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2023", 'a number: .* such as "2023"'),
        ("1.10", "a number"),
        ("true", 'a boolean: .* such as "true"'),
        ("~", "a missing value"),
    ],
)
def test_what_is_no_text_is_refused_with_quotes(cwd: Path, text: str, message: str) -> None:
    write(ignore=f"[{text}]")
    with pytest.raises(InputError, match=rf"data\.ignore must be text, got .*, .* {message}"):
        config.compose()
    write(labels=f"{{a: {text}}}")
    with pytest.raises(InputError, match=rf"data\.labels must be text, got .*, .* {message}"):
        config.compose()
    if text != "~":
        write()
        with pytest.raises(InputError, match=rf"data\.ignore must be text, got .*, .* {message}"):
            config.compose([f"data.ignore=[{text}]"])


def test_a_date_and_a_key_are_refused_too(cwd: Path) -> None:
    write(path="2024-01-01")
    with pytest.raises(InputError, match="which YAML reads as a date"):
        config.compose()
    write(labels="{0: zero}")
    with pytest.raises(InputError, match='such as "0"'):
        config.compose()
    write(path="~")
    with pytest.raises(InputError, match=r"data\.path must be text, got null"):
        config.compose()


@pytest.mark.parametrize(
    "path",
    [
        "My Pics (new), a=b",
        "100% $HOME #1 {x}",
        "[x]",
        "{a: b}",
        "2023",
        "010",
        "true",
        'say "x"',
        "C:\\x y\\",
        "it's",
        "a, b",
    ],
)
def test_a_text_of_the_command_line_is_taken_as_it_is(cwd: Path, path: str) -> None:
    write()
    assert config.compose([f"data.path={path}"]).data.path == path


def test_references_and_quotes_keep_their_meaning(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    monkeypatch.setenv("WHERE", "elsewhere")
    assert config.compose(["data.path=${oc.env:WHERE}"]).data.path == "elsewhere"
    assert config.compose(["data.path='a b'"]).data.path == "a b"
    assert config.compose(["tracking.uri=null"]).tracking.uri is None
