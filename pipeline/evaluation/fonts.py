"""Names of classes and files in plots, whatever script they are written in.

text -> text that matplotlib draws as it stands, with the fonts that it needs. The plots' bytes
depend on these fonts where names are not in Latin, Greek or Cyrillic letters.
"""

import importlib.util
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

_USUAL = "DejaVu Sans"
_JAPANESE = "matplotlib_fontja"
"""A package that carries a free font; the fonts of the system come after it."""


def readable(text: str) -> str:
    r"""A text as plots can show it.

    Args:
        text: Any. What none of the fonts here has is written out, as in `\u65e5`.
    """
    drawn = "".join(one if one == "\n" or _drawable(one) else _written_out(one) for one in text)
    return drawn.replace("$", r"\$")  # or matplotlib takes it for the beginning of a formula


@cache
def _drawable(character: str) -> bool:
    """Whether a font has a character; the first that does is used from now on."""
    for path in _fonts():
        if ord(character) in _characters(path):
            _use(path)
            return True
    _tell(character)
    return False


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a font file that FreeType cannot read
        return frozenset()


def _tell(character: str) -> None:
    """Say once for each script what plots cannot show."""
    script = unicodedata.name(character, "").partition(" ")[0]
    if script not in _told:
        _told.add(script)
        print(
            f"plots write {character} and its like as {_written_out(character)}, for no font here "
            "has it: install one, such as fonts-noto-cjk or fonts-noto-core of Debian",
            file=sys.stderr,
        )


_told: set[str] = set()


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()


@cache
def _fonts() -> tuple[str, ...]:
    return tuple(_paths())


def _paths() -> Iterator[str]:
    """Files of fonts, those first that are the same on every machine."""
    yield font_manager.findfont(_USUAL)
    spec = importlib.util.find_spec(_JAPANESE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from map(str, sorted(Path(folder).rglob("*.ttf")))
    yield from sorted(font_manager.findSystemFonts())


@cache
def _use(path: str) -> None:
    """Let matplotlib take what the fonts before do not have from this one."""
    font_manager.fontManager.addfont(path)
    name = FT2Font(path).family_name
    family = list(mpl.rcParams["font.family"])
    if name not in family:
        mpl.rcParams["font.family"] = [*(family if family != ["sans-serif"] else [_USUAL]), name]
