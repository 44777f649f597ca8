"""Images are decoded by content: every file of two real collections has the expected outcome."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decoding import Decoding, Fit
from pipeline.data.image_file import BadImage, decode

pytestmark = pytest.mark.xdist_group("images")

# File -> upright size in the file, or the beginning of the reason why it is no image.
ODDITIES: dict[str, tuple[int, int] | str] = {
    "bombs/decompression_bomb.gif": "decompression bomb: Image size (4364696535 pixels)",
    "bombs/decompression_bomb_extents.gif": (100, 100),
    "bombs/png_decompression_dos.png": "decompression bomb: Decompressed data too large",
    "hopper/hopper.Lab.tif": (128, 128),
    "hopper/hopper.avif": (128, 128),
    "hopper/hopper.bmp": (128, 128),
    "hopper/hopper.gif": (128, 128),
    "hopper/hopper.heif": "damaged, or not supported here: HEIF",
    "hopper/hopper.jpg": (128, 128),
    "hopper/hopper.png": (128, 128),
    "hopper/hopper.tif": (128, 128),
    "hopper/hopper.webp": (128, 128),
    "hopper/hopper_16bit_qtables.jpg": (128, 128),
    "hopper/hopper_45.png": (182, 182),
    "hopper/hopper_bad_exif.jpg": (500, 500),
    "hopper/hopper_g4.tif": (128, 128),
    "hopper/hopper_gray.jpg": (128, 128),
    "hopper/hopper_idat_after_image_end.png": (128, 128),
    "hopper/hopper_lzw.tif": (128, 128),
    "hopper/hopper_mask.png": (16, 16),
    **{f"hopper/hopper_orientation_{n}.jpg": (128, 128) for n in range(2, 9)},
    "hopper/hopper_orientation_6.webp": (128, 128),
    "hopper/hopper_resized.gif": (64, 64),
    "hopper/hopper_rle8.bmp": (128, 128),
    "hopper/hopper_rle8_row_overflow.bmp": (128, 128),
    "hopper/hopper_unknown_pixel_mode.tif": "damaged, or not supported here: TIFF",
    "hopper/hopper_webp.tif": "damaged: decoder error",
    "hopper/truncated_app14.jpg": (100, 100),
    "hopper/truncated_end_chunk.png": "truncated: Truncated File Read",
    "hopper/truncated_exif_dpi.jpg": (480, 640),
    "hopper/truncated_image.png": "truncated: image file is truncated",
    "hopper/truncated_jpeg.jpg": "truncated: image file is truncated",
    "misc/12in16bit.tif": (100, 100),
    "misc/16bit.cropped.tif": (64, 64),
    "misc/1_trns.png": (64, 64),
    "misc/broken.png": "damaged, or not supported here: PNG",
    "misc/broken_data_stream.png": "damaged: unrecognized data stream",
    "misc/broken_exif_dpi.jpg": (100, 100),
    "misc/bw_gradient.png": (256, 10),
    "misc/chi.gif": (320, 240),
    "misc/delay.png": (128, 64),
    "misc/dispose_bgnd.gif": (100, 100),
    "misc/exif_imagemagick_orientation.png": (512, 512),
    "misc/exif_typeerror.jpg": (800, 531),
    "misc/expected_to_read.jp2": "truncated: Expected to read 8 bytes",
    "misc/flower.jpg": (480, 360),
    "misc/flower.webp": (480, 360),
    "misc/frozenpond.mpo": (640, 480),
    "misc/i_trns.png": (64, 64),
    "misc/icc-after-SOF.jpg": (10, 10),
    "misc/invalid-exif.jpg": (200, 200),
    "misc/iss634.webp": (245, 245),
    "misc/jpeg_ff00_header.jpg": (300, 225),
    "misc/junk_jpeg_header.jpg": (1024, 768),
    "misc/l_trns.png": (64, 64),
    "misc/mmap_error.bmp": (127, 64),
    "misc/mode_16bit.png": (128, 64),
    "misc/multiple_exif.jpg": (1, 1),
    "misc/no_palette.gif": (1, 1),
    "misc/not_enough_data.jp2": "damaged, or not supported here: JPEG 2000",
    "misc/orientation_rectangle.jpg": (1, 2),
    "misc/p_16.png": (128, 128),
    "misc/p_trns_single.png": (64, 64),
    "misc/pil123rgba.png": (162, 150),
    "misc/pil136.png": (55, 43),
    "misc/pil_sample_cmyk.jpg": (100, 100),
    "misc/pil_sample_rgb.jpg": (100, 100),
    "misc/rgb32bf-rgba.bmp": (127, 64),
    "misc/rgb_trns.png": (64, 64),
    "misc/sugarshack_bad_mpo_header.jpg": (640, 480),
    "misc/tRNS_null_1x1.png": (1, 1),
    "misc/test-card-lossless.jp2": (640, 480),
    "misc/tiff_16bit_RGB_target.png": (100, 40),
    "misc/tiff_16bit_RGBa_target.png": (100, 40),
    "misc/tiff_strip_cmyk_jpeg.tif": (100, 100),
    "misc/tiny.png": (4, 4),
    "misc/transparent.gif": (200, 150),
    "misc/transparent.png": (200, 150),
    "misc/transparent.webp": (200, 150),
    "misc/ultrahdr.jpg": "truncated: image file is truncated",
    "misc/uncompressed_l.png": (128, 128),
    "misc/uncompressed_la.png": (128, 128),
    "misc/unknown_compression_method.png": "damaged, or not supported here: PNG",
    "misc/xmp_tags_orientation.png": (326, 268),
    "misc/zero_width.gif": "zero pixels",
}


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        files = [member for member in tar if member.isfile()]
        return {f.name.partition("/")[2]: tar.extractfile(f).read() for f in files}


@pytest.fixture(scope="module")
def oddities() -> dict[str, bytes]:
    archive = Path(__file__).parents[3] / "shared" / "data" / "oddities.tar"
    if not archive.exists():
        pytest.skip("needs ../shared/data/oddities.tar, which is absent")
    return contents(archive)


def test_every_oddity_has_its_outcome(oddities: dict[str, bytes]) -> None:
    assert oddities.keys() == ODDITIES.keys()
    wrong = {}
    for name, expected in ODDITIES.items():
        try:
            actual = decode(oddities[name], 96, Decoding(Fit.pad))
            outcome: tuple[int, int] | str = (actual.width, actual.height)
        except BadImage as bad:
            outcome = str(bad)
        same = outcome == expected
        if isinstance(expected, str) and isinstance(outcome, str):
            same = outcome.startswith(expected)
        if not same:
            wrong[name] = outcome
    assert not wrong


def test_the_same_image_in_many_formats_looks_alike(oddities: dict[str, bytes]) -> None:
    reference = decode(oddities["hopper/hopper.png"], 96)[0].astype(int)
    equal = ["hopper.Lab.tif", "hopper.avif", "hopper.bmp", "hopper.gif", "hopper.jpg"]
    equal += ["hopper.tif", "hopper.webp", "hopper_lzw.tif", "hopper_rle8.bmp"]
    equal += [f"hopper_orientation_{n}.jpg" for n in range(2, 9)] + ["hopper_orientation_6.webp"]
    for name in equal:
        pixels = decode(oddities[f"hopper/{name}"], 96)[0].astype(int)
        assert np.abs(pixels - reference).mean() < 10, name


def test_transparency_is_white_and_16_bits_keep_their_tones(oddities: dict[str, bytes]) -> None:
    for name in ("transparent.gif", "transparent.png", "transparent.webp"):
        assert (decode(oddities[f"misc/{name}"], 96)[0][0, 0] == 255).all(), name
    for name in ("misc/i_trns.png", "misc/16bit.cropped.tif"):
        assert len(np.unique(decode(oddities[name], 64)[0])) > 20, name
    cmyk = decode(oddities["misc/pil_sample_cmyk.jpg"], 96)[0].astype(int)
    rgb = decode(oddities["misc/pil_sample_rgb.jpg"], 96)[0].astype(int)
    assert np.abs(cmyk - rgb).mean() < 12


BOMBS = """
import resource, sys
from pathlib import Path
from pipeline.data.image_file import decode
from pipeline.data.image_file import BadImage
before = resource.getrusage(resource.RUSAGE_SELF)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        decode(path.read_bytes(), 96)
    except BadImage:
        continue
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_maxrss - before.ru_maxrss, after.ru_utime - before.ru_utime)
"""


def test_bombs_cost_neither_memory_nor_time(oddities: dict[str, bytes], tmp_path: Path) -> None:
    for name in [name for name in oddities if name.startswith("bombs/")]:
        (tmp_path / Path(name).name).write_bytes(oddities[name])
    assert len(list(tmp_path.iterdir())) == 3
    # In a process of its own: the memory told is the most that a process ever held.
    command = [sys.executable, "-c", BOMBS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    memory_kb, seconds = map(float, done.stdout.split())
    assert memory_kb < 50_000
    assert seconds < 2


def test_exif_orientations_look_alike(shared: Path) -> None:
    files = contents(shared / "data" / "exif_orient.tar")
    assert len(files) == 18
    for kind in ("landscape", "portrait"):
        pixels = [decode(data, 64)[0].astype(int) for name, data in files.items() if kind in name]
        for other in pixels[1:]:
            # They differ in the numeral that each shows.
            assert np.abs(other - pixels[0]).mean() < 6


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bit_ramp_keeps_its_order(format_name: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, format_name)
    row = decode(file.getvalue(), 64)[0][0, :, 0].astype(int)
    assert row[0] == 0
    assert row[-1] == 255
    assert (np.diff(row) > 0).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git-lfs pointer"),
        (b"hello, this is text", "not an image"),
    ],
)
def test_what_is_no_image_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(content, 8)


def test_other_users_of_pillow_keep_their_limit() -> None:
    code = "from PIL import Image; old = Image.MAX_IMAGE_PIXELS; import pipeline.data.image_file; "
    code += "assert old and Image.MAX_IMAGE_PIXELS == old"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_limit_of_a_data_set_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, "PNG")
    assert decode(file.getvalue(), 8).width == 100
    with pytest.raises(BadImage, match="decompression bomb"):
        decode(file.getvalue(), 8, Decoding(max_megapixels=0.001))


def test_the_ways_to_fit_a_square() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 100
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    assert (decode(file.getvalue(), 10, Decoding(Fit.crop))[0] == 100).all()
    assert decode(file.getvalue(), 10, Decoding(Fit.squash))[0].mean() < 60
    assert (decode(file.getvalue(), 30, Decoding(Fit.pad))[0][0] == 255).all()
