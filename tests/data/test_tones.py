"""Images of more than 8 bits: their tones, pages and sizes."""

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.decoding import Decoding, Pages, Tones
from pipeline.data.image_file import BadImage, decode


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(values: NDArray[np.uint16]) -> bytes:
    """A PNG with 16 bits a channel, which Pillow cannot write in colour."""
    import zlib

    height, width, channels = values.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(values: NDArray[np.uint16], order: str) -> bytes:
    """A TIFF with 16 bits a channel, likewise."""
    height, width, channels = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    depths = struct.pack(f"{order}{channels}H", *[16] * channels)
    start = 8 + 2 + 9 * 12 + 4
    short = lambda tag, value: (tag, 3, 1, struct.pack(f"{order}HH", value, 0))  # noqa: E731
    long = lambda tag, kind, count, value: (  # noqa: E731
        *(tag, kind, count),
        struct.pack(f"{order}I", value),
    )
    entries = [
        *(short(256, width), short(257, height), long(258, 3, channels, start), short(259, 1)),
        *(short(262, 2), long(273, 4, 1, start + len(depths)), short(277, channels)),
        *(short(278, height), long(279, 4, 1, len(pixels))),
    ]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(
        struct.pack(f"{order}HHI", tag, kind, count) + value for tag, kind, count, value in entries
    )
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HI", 42, 8) + directory + bytes(4) + depths + pixels


def ramp(top: int, channels: int) -> NDArray[np.uint16]:
    """(16, 16, channels): every tone from 0 to `top`, another in each channel; opaque."""
    values = np.linspace(0, top, 256).round().astype(np.uint16).reshape(16, 16, 1)
    turned = [np.roll(values, 5 * channel) for channel in range(min(channels, 3))]
    opaque = [np.full_like(values, 65535)] if channels == 4 else []
    return np.concatenate([*turned, *opaque], axis=2)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "png with alpha", "tiff <", "tiff >", "grey"])
def test_every_tone_of_16_bits_a_colour_is_kept(kind: str, bits: int) -> None:
    values = ramp(2**bits - 1, {"png with alpha": 4, "grey": 1}.get(kind, 3))
    content = tiff(values, kind[-1]) if kind.startswith("tiff") else png(values)
    actual = decode(content, 16)
    assert actual.tones == Tones.of_depth(bits)
    expected = np.round(values[..., :3] / (2**bits - 1) * 255)
    assert np.array_equal(actual.pixels, np.broadcast_to(expected, (16, 16, 3)))
    brighter = decode(content, 16, Decoding(tones=Tones.of_depth(16))).pixels
    assert abs(int(brighter.max()) - 255 / 2 ** (16 - bits)) <= 1, "the data set says what is white"


def test_16_bit_grey_with_transparency() -> None:
    grey = ramp(65535, 1)
    half = np.where(np.arange(16)[:, None, None] < 8, 65535, 0).astype(np.uint16)
    pixels = decode(png(np.concatenate([grey, half + np.zeros_like(grey)], axis=2)), 16).pixels
    assert np.abs(pixels[:8, :, 0] - grey[:8, :, 0] / 257).max() <= 1
    assert (pixels[8:] == 255).all(), "on white"


def test_an_image_beyond_the_data_sets_depth_is_told() -> None:
    how = Decoding(tones=Tones.of_depth(12))
    with pytest.raises(BadImage, match=r"60000, beyond the dataset's 12 bits: .*depth"):
        decode(png(ramp(60000, 1)), 16, how)
    assert decode(png(ramp(4095, 1)), 16, how).pixels.max() == 255


def test_values_without_an_agreed_white() -> None:
    fractions = np.linspace(-2, 6, 256, dtype=np.float32).reshape(16, 16)
    content = saved(Image.fromarray(fractions), "TIFF")
    assert decode(content, 16).tones == Tones(-2, 6)
    how = Decoding(tones=Tones(-10, 10))
    assert decode(content, 16, how).pixels.max() == round(16 / 20 * 255)
    unit = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    assert decode(saved(unit, "TIFF"), 4).pixels[0, 0, 0] == 128
    assert Tones.of_depth(12) | Tones.of_depth(16) == Tones.of_depth(16)


def test_what_is_no_number_does_not_count() -> None:
    holes = np.array([[0.0, 0.5], [np.nan, 1.0]], np.float32)
    actual = decode(saved(Image.fromarray(holes), "TIFF"), 2)
    assert actual.tones == Tones(0, 1)
    assert actual.pixels[..., 0].tolist() == [[0, 128], [0, 255]]
    holes[1] = [np.inf, -np.inf]
    actual = decode(saved(Image.fromarray(holes), "TIFF"), 2)
    assert actual.pixels[..., 0].tolist() == [[0, 128], [255, 0]]
    empty = saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF")
    assert (decode(empty, 2).pixels == 0).all()


def test_a_stack_is_refused_or_its_first_page_is_taken() -> None:
    pages = [Image.new("L", (8, 8), tone) for tone in (0, 80, 160)]
    stack = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(BadImage, match=r"3 pages: save each .* data\.pages=first"):
        decode(stack, 8)
    assert (decode(stack, 8, Decoding(pages=Pages.first)).pixels == 0).all()
    assert decode(saved(pages[1], "TIFF"), 8).pixels.max() == 80


def test_smaller_copies_are_no_pages() -> None:
    large, small = Image.new("L", (8, 8), 90), Image.new("L", (4, 4), 90)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    content = saved(large, "TIFF", save_all=True, append_images=[small])
    assert decode(content, 8).pixels.max() == 90


def test_a_large_photograph_is_let_in_and_a_bomb_is_not() -> None:
    photograph = saved(Image.new("RGB", (12000, 9000), "red"), "JPEG")  # of a telephone
    actual = decode(photograph, 32)
    assert (actual.width, actual.height) == (12000, 9000)
    drawing = saved(Image.new("1", (12000, 9000)), "PNG")
    with pytest.raises(BadImage, match=r"12000 x 9000 .* 108 megapixels, .* 100.*data\.max"):
        decode(drawing, 32)
    assert decode(drawing, 32, Decoding(max_megapixels=110)).width == 12000


def test_a_bomb_inside_an_icon() -> None:
    icon = saved(Image.new("RGB", (16, 16)), "ICO")
    inner = saved(Image.new("1", (11000, 11000)), "PNG")
    start = struct.unpack("<I", icon[18:22])[0]
    with pytest.raises(BadImage, match="bomb"):
        decode(icon[:14] + struct.pack("<II", len(inner), start) + inner, 16)
    assert decode(icon, 16).width == 16
