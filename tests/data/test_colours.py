"""Colour profiles, negatives, declared transparency and blank first frames."""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.data import profiles
from pipeline.data.image_file import decode

RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exchanged() -> bytes:
    """A profile that swaps red and green, named sRGB."""
    profile = bytearray(srgb())
    (count,) = struct.unpack(">I", profile[128:132])
    places = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


PATCHES = Image.fromarray(
    np.array([[[200, 0, 0], [0, 200, 0]], [[0, 0, 200], [90, 90, 90]]], np.uint8)
)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_red_and_green_keep_their_places(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    swapped = Image.merge("RGB", [PATCHES.getchannel(name) for name in "GRB"])
    plain = decode(saved(PATCHES, kind, **options), 2).pixels.astype(int)
    converted = decode(saved(swapped, kind, icc_profile=exchanged(), **options), 2).pixels
    assert np.abs(converted - plain).max() <= 2
    same = decode(saved(PATCHES, kind, icc_profile=srgb(), **options), 2).pixels
    assert (same == plain).all()
    broken = decode(saved(PATCHES, kind, icc_profile=b"no profile", **options), 2).pixels
    assert (broken == plain).all()


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_and_palettes_have_profiles_too(mode: str) -> None:
    if mode == "RGBA":
        image = PATCHES.convert("RGBA")
        image.putpixel((1, 1), (0, 0, 0, 0))
    else:
        image = PATCHES.quantize(4)
    pixels = decode(saved(image, "PNG", icc_profile=exchanged()), 2).pixels.astype(int)
    assert pixels[0, 0, 1] > 150 > pixels[0, 0, 0]
    if mode == "RGBA":
        assert (pixels[1, 1] == 255).all()


def test_a_profile_for_another_kind_of_image_is_ignored() -> None:
    grey = Image.new("L", (2, 2), 77)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert profiles.to_srgb(grey, lab) is grey


def test_16_bits_whose_zero_is_white() -> None:
    def tiff(photometric: int, values: np.ndarray) -> bytes:
        content = saved(Image.fromarray(values), "TIFF", tiffinfo={262: photometric})
        assert Image.open(io.BytesIO(content)).tag_v2[262] == photometric
        return content

    black_is_zero = decode(tiff(1, RAMP), 16).pixels.astype(int)
    white_is_zero = decode(tiff(0, 65535 - RAMP), 16).pixels.astype(int)
    assert np.abs(black_is_zero - white_is_zero).max() <= 1


def test_a_declared_value_of_16_bits_is_transparent() -> None:
    content = saved(Image.fromarray(RAMP), "PNG", transparency=0)
    pixels = decode(content, 16).pixels
    assert (pixels[0, 0] == 255).all()
    assert pixels[0, 1, 0] == 1
    twelve = np.where(RAMP == 65535, 65535, RAMP // 16).astype(np.uint16)
    declared = decode(saved(Image.fromarray(twelve), "PNG", transparency=65535), 16)
    assert declared.tones is not None
    assert declared.tones.depth == 12, "what is transparent is no tone"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("blank", [(0, 0, 0, 0), (0, 0, 0, 255)])
def test_a_blank_first_frame_is_passed_over(kind: str, blank: tuple[int, ...]) -> None:
    empty = Image.new("RGBA", (8, 8), blank)
    drawn = Image.new("RGBA", (8, 8), (250, 0, 0, 255))
    drawn.paste((0, 0, 250, 255), (0, 0, 4, 8))
    content = saved(empty, kind, save_all=True, append_images=[empty.copy(), drawn], duration=50)
    pixels = decode(content, 8).pixels
    assert pixels[4, 6, 0] > 200 > pixels[4, 6, 2]
    assert pixels[4, 1, 2] > 200 > pixels[4, 1, 0]
    still = saved(empty, kind)
    assert len(np.unique(decode(still, 8).pixels)) == 1


def test_the_field_cases(shared: Path) -> None:
    with tarfile.open(shared / "data" / "field_cases_2.tar") as archive:
        files = {item.name.partition("/")[2]: item for item in archive if item.isfile()}

        def pixels(name: str) -> np.ndarray:
            content = archive.extractfile(files[name])
            assert content is not None
            return decode(content.read(), 40).pixels.astype(int)

        plain = pixels("07_icc/plain_srgb.png")
        assert np.abs(plain - pixels("07_icc/same_look_other_profile.png")).max() <= 2
        assert set(np.unique(pixels("08_transparency/i16_trns.png"))) == {195, 255}
        assert pixels("08_transparency/anim_blank_first.gif").std() > 50
        scans = [
            pixels(f"16_white_is_zero/{bits}bit_{name}_is_zero.tif")
            for bits in (8, 16)
            for name in ("black", "white")
        ]
        assert max(np.abs(scan - scans[0]).max() for scan in scans) <= 1
