"""Embedded colour profiles: other colour spaces → sRGB, with Little CMS. They may be hostile."""

import hashlib
import io
import struct
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image, ImageCms

from predictor.images.colour import to_rgb

# For ISO Coated v2, which is one of the largest that printers publish, 1.8 MB.
MAX_PROFILE = 4_000_000  # bytes
MAX_TAGS = 100
# The type of a tag that is a pipeline of stages. It may have thousands, which take quadratic time:
# 323 kB took 17 s. In 0.8 MB, stages that share a table took 6 GB. Cameras and editors write none.
PIPELINE = b"mpet"
# Of a profile's header, ICC.1:2022 7.2: inputs, displays, printers and colour spaces.
CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}  # by colour space: Pillow's mode
GREY_MODES = ("1", "L", "LA", "I", "F")  # and I;16 in its variants
# A profile that changes no colour by more than this, of 255, is one of the many of sRGB.
SAME = 2
# Pixels that are converted before they are resized: rounding errors then cancel out, and the
# probabilities move by half as much. A photo of 500 × 375 takes 2.8 ms instead of 1 ms.
MAX_EXACT = 200_000
MAX_TRANSFORMS = 32  # in memory; one for CMYK takes 0.5 MB
# To share a transform between threads, Little CMS must not remember the last pixel in it. Black of
# printed ink becomes black, as editors show it: EfficientNet-Lite0 then gives 1 instead of 3 of 50
# photos in CMYK another class than in sRGB.
FLAGS = ImageCms.Flags.NOCACHE | ImageCms.Flags.BLACKPOINTCOMPENSATION

# The primaries of Display P3 and BT.2020, by their code in an AVIF or HEIC (ITU-T H.273): X, Y, Z
# of red, green and blue, adapted to D50. Both are used with the curve of sRGB.
PRIMARIES = {
    12: ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),
    9: ((0.6734, 0.2790, -0.0019), (0.1657, 0.6753, 0.0299), (0.1251, 0.0456, 0.7969)),
}

_transforms: OrderedDict[bytes, ImageCms.ImageCmsTransform | None] = OrderedDict()
_lock = threading.Lock()


def keep_profile(image: Image.Image, data: bytes, alpha: bool = False) -> Image.Image:
    """Convert an image of any mode to RGB, but leave its colours to :func:`to_srgb`.

    With ``alpha``, an image that has transparency becomes RGBA. If the image, from the file
    ``data``, has a profile that can be used, it stays in ``info``, and CMYK stays CMYK. Nothing
    else stays in ``info``.
    """
    profile = image.info.get("icc_profile") or _profile_of_primaries(data)
    usable = profile is not None and is_usable(profile, image.mode)
    kept = image if usable and image.mode == "CMYK" else to_rgb(image, alpha)
    kept.info = {"icc_profile": profile} if usable else {}
    return kept


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image of :func:`keep_profile`, or its part, to sRGB. A broken profile is ignored.

    RGBA keeps its alpha. 224 × 224 pixels take 1 ms, of CMYK 2.4 ms. The first image with a profile
    takes 4 ms more, of CMYK 35 ms.
    """
    if image.mode == "RGBA":
        converted = to_srgb(image.convert("RGB"))
        converted.putalpha(image.getchannel("A"))
        return converted
    profile = image.info.get("icc_profile")
    transform = _transform(profile) if profile else None
    if transform is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    if transform.input_mode == "L":
        image = image.getchannel(0)
    return transform.apply(image)


def is_srgb(image: Image.Image) -> bool:
    """Return whether :func:`to_srgb` would change no colour of the image."""
    profile = image.info.get("icc_profile")
    return image.mode != "CMYK" and (profile is None or _transform(profile) is None)


def to_srgb_early(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Convert a part of an RGB image to sRGB if it is small; the rest may become black.

    Otherwise return the image as it is, so that :func:`to_srgb` converts it after it is resized.
    CMYK takes twice the time, and its classes are the same.
    """
    profile, size = image.info.get("icc_profile"), (box[2] - box[0]) * (box[3] - box[1])
    if profile is None or image.mode != "RGB" or size > MAX_EXACT or _transform(profile) is None:
        return image
    converted = Image.new("RGB", image.size)
    converted.paste(to_srgb(image.crop(box)), box[:2])
    return converted


def is_usable(profile: bytes, mode: str) -> bool:
    """Return whether the header of a profile fits an image of this mode, and is not hostile."""
    if not 132 < len(profile) <= MAX_PROFILE or profile[12:16] not in CLASSES:
        return False
    (tags,) = struct.unpack_from(">I", profile, 128)
    if tags > MAX_TAGS:
        return False
    places = (profile[at : at + 4] for at in range(136, 136 + 12 * tags, 12))
    if any(profile.startswith(PIPELINE, int.from_bytes(place, "big")) for place in places):
        return False
    space = profile[16:20]
    if mode in ("CMYK", "LAB"):
        return mode == "CMYK" and space == b"CMYK"
    return space == b"RGB " or (space == b"GRAY" and mode.split(";")[0] in GREY_MODES)


def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from the profile to sRGB. None: the colours can stay as they are."""
    key = hashlib.sha256(profile).digest()
    with _lock:
        if key in _transforms:
            _transforms.move_to_end(key)
            return _transforms[key]
    transform = _build(profile)
    with _lock:
        _transforms[key] = transform
        if len(_transforms) > MAX_TRANSFORMS:
            _transforms.popitem(last=False)
    return transform


def _build(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    mode, srgb = MODES[profile[16:20]], ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        transform = ImageCms.buildTransform(
            io.BytesIO(profile), srgb, mode, "RGB", intent, flags=FLAGS
        )
    except ImageCms.PyCMSError:
        return None
    return None if mode != "CMYK" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.arange(0, 256, 17, dtype=np.uint8)  # from black to white
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(64, 64, 3)
    image = Image.fromarray(colours)
    if transform.input_mode == "L":
        image = image.getchannel(0)
    after = np.asarray(transform.apply(image), np.int16)
    return bool(np.abs(after - np.asarray(image.convert("RGB"))).max() <= SAME)


def _profile_of_primaries(data: bytes) -> bytes | None:
    """Return a profile of the primaries in an AVIF's or HEIC's box ``colr``, if it names some."""
    at = data.find(b"colrnclx", 0, 100_000) if data[4:8] == b"ftyp" else -1
    primaries = PRIMARIES.get(int.from_bytes(data[at + 8 : at + 10], "big")) if at > 0 else None
    return _matrix_profile(primaries) if primaries else None


def _matrix_profile(primaries: tuple[tuple[float, ...], ...]) -> bytes:
    """Return Little CMS' own ICC profile of sRGB with other primaries, and so the same curve."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # the time, with which each would be another profile
    (tags,) = struct.unpack_from(">I", profile, 128)
    table = profile[132 : 132 + 12 * tags]
    places = {tag: at for tag, at, _ in struct.iter_unpack(">4sII", table)}
    for tag, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        numbers = (round(value * 65536) for value in primary)
        struct.pack_into(">4s4x3i", profile, places[tag], b"XYZ ", *numbers)
    return bytes(profile)
