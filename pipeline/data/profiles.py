"""Colour profiles: convert the colours of a camera or printer to sRGB.

image + its ICC profile -> RGB image. Networks were trained on sRGB values.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageCms

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}
"""Colour space of a profile -> mode of the images that it describes."""
_SRGB = ImageCms.createProfile("sRGB")
_SWATCHES = Image.merge(
    "RGB", [Image.linear_gradient("L").rotate(90 * turns).resize((16, 16)) for turns in range(3)]
)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image to sRGB if its profile describes it.

    The image has 8 bits per channel and may be transparent. A damaged profile, or one for another
    kind of image, is ignored, as in browsers.
    """
    if not profile or _is_srgb(profile):
        return image
    try:
        mode, transform = _transform(profile)
        if mode == "RGB" or (mode == "L" and image.mode in ("1", "LA")):
            opaque = image.convert(mode)
        elif mode == image.mode:
            opaque = image
        else:
            return image
        converted = ImageCms.applyTransform(opaque, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert converted is not None  # because it is not changed in place
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


@lru_cache(64)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform]:
    """Build the transform to sRGB, which takes longer than its use; also returns its input mode.

    Raises:
        ValueError: The profile is for images of another kind.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = _MODES.get(source.profile.xcolor_space.strip().upper())
    if mode is None:
        raise ValueError("unknown colour space")
    return mode, ImageCms.buildTransform(source, _SRGB, mode, "RGB")


@lru_cache(64)
def _is_srgb(profile: bytes) -> bool:
    """Check if a profile is sRGB, whatever its name: to one level of 255."""
    try:
        converted = ImageCms.profileToProfile(_SWATCHES, io.BytesIO(profile), _SRGB)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    assert converted is not None
    return bool(np.asarray(ImageChops.difference(converted, _SWATCHES)).max() <= 1)
