"""ICC profiles, written as bytes, so that no profile is stored. After ICC.1:2022, version 2."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
from PIL import Image, ImageCms

D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
# To D50, the white of all profiles (Bradford, ICC.1:2022 annex E).
ADAPT = {
    D65: np.array(
        [[1.0478, 0.0229, -0.0501], [0.0295, 0.9905, -0.0170], [-0.0092, 0.0150, 0.7521]]
    ),
    D50: np.eye(3),
}
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BT_2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))


def profile(
    space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", pcs: bytes = b"XYZ "
) -> bytes:
    """A profile for a colour space, of these tags."""
    table, body, begin = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, begin + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">4sI4s4s4s", b"", 0x02400000, kind, space, pcs) + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    whole = head.ljust(124, b"\0") + table + body
    return struct.pack(">I", len(whole) + 4) + whole


def curve(gamma: float | None) -> bytes:
    """A gamma, or None for the curve of sRGB."""
    if gamma is not None:
        return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + bytes(2)
    x = np.linspace(0, 1, 1024)
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return b"curv" + struct.pack(">II", 0, 1024) + (linear * 65535).round().astype(">u2").tobytes()


def colorants(primaries, white):
    """X, Y, Z of red, green and blue, adapted to D50, from chromaticities x, y."""
    x, y = np.array([*primaries, white]).T
    xyz = np.array([x / y, np.ones(4), (1 - x - y) / y])
    return (ADAPT[white] @ (xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3]))).T


def rgb_profile(primaries, white=D65, gamma: float | None = None) -> bytes:
    tags = {}
    for name, xyz in zip("rgb", colorants(primaries, white), strict=True):
        numbers = struct.pack(">3i", *(round(value * 65536) for value in xyz))
        tags[f"{name}XYZ".encode()] = b"XYZ " + bytes(4) + numbers
        tags[f"{name}TRC".encode()] = curve(gamma)
    return profile(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"kTRC": curve(gamma)})


def cmyk_profile(inks: str = "CMYK", grid: int = 9) -> bytes:
    """Inks that take away all of their complement, in the order given."""
    levels = np.linspace(1, 0, grid)
    nodes = np.array(list(itertools.product(levels, repeat=4)))[:, [inks.index(i) for i in "CMYK"]]
    rgb = (nodes[:, :3] * nodes[:, 3:] * 255).round().astype(np.uint8)
    image = Image.fromarray(rgb[None])
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    clut = ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    values = np.asarray(clut, np.uint8) + np.array([0, 128, 128], np.uint8)  # Pillow's are signed
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, grid, 0])
    table += (np.eye(3) * 65536).astype(">i4").tobytes()
    table += ramp * 4 + values.tobytes() + ramp * 3
    return profile(b"CMYK", {b"A2B0": table}, b"prtr", b"Lab ")


ADOBE = rgb_profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), gamma=563 / 256)
PROPHOTO = rgb_profile(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), D50, 1.8)
WIDE = rgb_profile(((0.7347, 0.2653), (0.1152, 0.8264), (0.1566, 0.0177)), D50, 563 / 256)
DISPLAY_P3 = rgb_profile(P3)
# Red and green are exchanged.
SWAPPED = rgb_profile((SRGB[1], SRGB[0], SRGB[2]))


def converted(image: Image.Image, to: bytes, mode: str = "RGB") -> Image.Image:
    """An sRGB image in the colours of a profile."""
    profiles = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(to))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.profileToProfile(image, *profiles, renderingIntent=intent, outputMode=mode)
