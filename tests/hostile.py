"""Small AVIF, HEIC and TIFF files that make a decoder compute for long or ask for much memory.

Each was found by an attack on the server, or is a variant of one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

from PIL import Image, TiffImagePlugin

from bad_images import tiff
from heic import HEADER, box, full, grid_of_one_tile, heic
from pictures import avif_of_frames, encode, jpeg_tiff, slow_scans

FTYP = b"\0\0\0\x14ftypavif\0\0\0\0avif"
OTHER, ORIENTED = (struct.pack("<HHII", tag, 3, 1, 3) for tag in (0x0111, 0x0112))
Makers = dict[str, Callable[[], bytes]]


def noise(width: int = 64, height: int = 64) -> Image.Image:
    return Image.effect_noise((width, height), 50)


def animated_avif() -> bytes:
    frame = noise(64, 48)
    return encode(frame, "AVIF", save_all=True, append_images=[frame.rotate(n) for n in range(9)])


def first_obu(data: bytes, kind: int) -> int:
    """Where the header of the first OBU of this type is. All of them have a size of one byte."""
    at = data.index(b"mdat") + 4
    while data[at] >> 3 & 15 != kind:
        at += 2 + data[at + 1]
    return at


def avif_with_frame_of_its_own_size() -> bytes:
    """Its sequence header may say anything: 4 kB took 1.3 s and 0.5 GB."""
    data = animated_avif()
    at = first_obu(data, 6) + 2
    return data[:at] + bytes([data[at] | 0b10]) + data[at + 1 :]


def avif_whose_first_sample_has_all_frames() -> bytes:
    data = animated_avif()
    size = data.index(b"stsz") + 16
    whole = len(data) - data.index(b"mdat") - 4
    return data[:size] + whole.to_bytes(4, "big") + data[size + 4 :]


def avif_in_pieces() -> bytes:
    data = avif_of_frames(1)
    extents = data.index(b"iloc") + 16
    return data[:extents] + b"\0\2" + data[extents + 2 :]


def resized(data: bytes, width: int, height: int) -> bytes:
    """The file with another size of its first picture than that of its frame."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def with_metadata(size: int) -> bytes:
    data = encode(Image.new("RGB", (64, 48)), "AVIF")
    at = data.index(b"meta") - 4
    (old,) = struct.unpack_from(">I", data, at)
    filling = box(b"free", bytes(size))
    meta = struct.pack(">I", old + len(filling)) + data[at + 4 : at + old] + filling
    return data[:at] + meta + data[at + old :]


def items(count: int, *, at: int, size: int, inside: bool = False) -> bytes:
    """An iloc box, version 1, with offsets and lengths of 32 bits."""
    one = struct.pack(">HHHHII", 1, inside, 0, 1, at, size)
    return box(b"iloc", b"\1\0\0\0\x44\0" + struct.pack(">H", count) + one * count)


def item_of(payload: bytes, count: int = 1) -> bytes:
    head = FTYP + items(count, at=0, size=0)
    return FTYP + items(count, at=len(head) + 8, size=len(payload)) + box(b"mdat", payload)


def track(chunks: int, samples: int) -> bytes:
    table = box(b"stsc", bytes(4) + struct.pack(">4I", 1, 1, samples, 1))
    table += box(b"stco", bytes(4) + struct.pack(">I", chunks) + bytes(4 * min(chunks, 20_000)))
    return FTYP + box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table)))))


def nested_boxes(depth: int) -> bytes:
    data = box(b"free", b"") * 18_000
    for _ in range(depth):
        data = box(b"trak", data)
    return data


def listed_again(kind: bytes, size: int) -> bytes:
    """An AVIF with a long list of this kind in place of its box of free space."""
    meta = box(b"meta", bytes(4) + box(kind, bytes(4) + struct.pack(">I", size // 4) + bytes(size)))
    return FTYP + meta + encode(Image.new("RGB", (64, 48)), "AVIF")[20:]


def exif_of_rationals(format: str, count: int) -> bytes:
    """Pillow takes 6 µs for each, and would encode all again to correct the orientation."""
    numbers = struct.pack("<HHII", 0x9000, 5, count, 38) + bytes(4) + bytes(8 * count)
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0" + OTHER + numbers
    return encode(noise(), format, exif=exif).replace(OTHER, ORIENTED)


def tile(side: int = 64) -> bytes:
    return heic(Image.new("RGB", (side, side), (200, 60, 40)))


def turned_heic(times: int) -> bytes:
    """Each turn takes 7 ns a pixel."""
    data = tile(512)
    at = data.index(b"ipco") - 4
    ((size,), turns) = struct.unpack_from(">I", data, at), box(b"irot", b"\1") * times
    return data[:at] + struct.pack(">I", size + len(turns)) + data[at + 4 : at + size] + turns


def grid_of_itself() -> bytes:
    one, other = (struct.pack(">4s3H", b"dimg", 2, 1, number) for number in (1, 2))
    return grid_of_one_tile(tile(), 1, (64, 64)).replace(one, other)


def alpha_of_a_tile() -> bytes:
    sizes = b"".join(full(b"ispe", struct.pack(">2I", n, n)) for n in (64, 4096))
    links = full(b"ipma", struct.pack(">I", 3) + b"\0\1\1\1\0\2\1\2\0\3\1\1")
    tiles = box(b"dimg", struct.pack(">2H4H", 3, 4, 1, 1, 1, 1))
    references = full(b"iref", tiles + box(b"auxl", struct.pack(">3H", 2, 1, 1)))
    return HEADER + full(b"pitm", b"\0\3") + box(b"ipco", sizes) + links + references


def block_tiff(content: bytes, *tags: tuple[int, int, int, int], size: int = 64) -> bytes:
    """A grey TIFF whose strip or tile begins at byte 400."""
    first = (256, 4, 1, size), (257, 4, 1, size), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)
    return tiff(*first, *tags)[:400].ljust(400, b"\0") + content


def tiff_of_many_rationals(count: int) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50714], tags.tagtype[50714] = (1.0,) * count, 5  # BlackLevel, of any number
    return encode(Image.new("L", (9, 9)), "TIFF", tiffinfo=tags)


def tiff_of_exif_groups(count: int) -> bytes:
    """Three groups at the same place, of so many rationals each."""
    pairs = (34665, 4, 1, 600), (34853, 4, 1, 600), (40965, 4, 1, 600)
    group = struct.pack("<HHHII", 1, 37000, 5, count, 618) + bytes(4) + bytes(8 * count)
    strip = (259, 3, 1, 1), (273, 4, 1, 400), (278, 4, 1, 8), (279, 4, 1, 64)
    return block_tiff(bytes(200), *strip, *pairs, size=8)[:600] + group


def tiff_of_a_high_jpeg(height: int, scans: int) -> bytes:
    """libtiff lets the last strip be higher, and decodes all scans: 1.6 kB took 0.7 s."""
    content = encode(noise(64, height), "JPEG")
    scan = content[content.index(b"\xff\xda") : -2]
    content = content[:-2] + scan * (scans - 1) + content[-2:]
    strip = (259, 3, 1, 7), (273, 4, 1, 400), (278, 4, 1, 64), (279, 4, 1, len(content))
    return block_tiff(content, *strip)


def tiff_of_large_tiles(width: int, height: int, count: int) -> bytes:
    tiles = (322, 4, 1, width), (323, 4, 1, height), (324, 4, count, 200), (325, 4, count, 200)
    return block_tiff(bytes(400), (259, 3, 1, 8), *tiles)


AVIF: Makers = {
    "frames in an item": partial(avif_of_frames, 300),
    "redundant frame headers": lambda: avif_of_frames(300).replace(b"\x32", b"\x3a"),
    "a frame of another size": avif_with_frame_of_its_own_size,
    "frames in a sample": avif_whose_first_sample_has_all_frames,
    "layers": lambda: avif_of_frames(300).replace(b"pixi", b"a1op"),
    "pieces": avif_in_pieces,
    "a frame larger than its picture": lambda: resized(avif_of_frames(1), 16, 12),
    "a frame that is scaled up": lambda: resized(avif_of_frames(1), 7_000, 7_000),
    "metadata": partial(with_metadata, 5_000_000),
    "item data boxes": lambda: (
        FTYP + items(1000, at=2**31, size=1, inside=True) + box(b"idat", b"") * 1000
    ),
    "a long size of an obu": lambda: item_of(b"\x12" + b"\xff" * 300_000),
    "operating points": lambda: item_of(b"\x0a\x52\x01\xf0" + bytes(80), 5_000),
    "samples in chunks": partial(track, 20_000, 2**31),
    "boxes in boxes": lambda: FTYP + nested_boxes(11),
    "boxes": lambda: FTYP + box(b"free", b"") * 500_000,
    "properties": partial(listed_again, b"ipma", 128_000),
    "references": partial(listed_again, b"iref", 128_000),
    "exif of rationals": partial(exif_of_rationals, "AVIF", 200_000),
}
HEIC: Makers = {
    "turns": partial(turned_heic, 200),
    "a video": lambda: tile() + box(b"moov", b""),
    "a hidden primary picture": lambda: grid_of_one_tile(tile(), 2, (128, 128), hidden=True),
    "a frame larger than its picture": lambda: resized(tile(512), 64, 64),
    "20,000 x 20,000 pixels": lambda: resized(tile(), 20_000, 20_000),
    "a large tile used often": lambda: grid_of_one_tile(tile(512), 40, (64, 64)),
    "a small tile used often": lambda: grid_of_one_tile(tile(), 71, (64, 64)),
    "a grid of itself": grid_of_itself,
    "an overlay on a large canvas": lambda: grid_of_one_tile(
        tile(), 1, (32_000, 32_000), overlay=True
    ),
    "alpha of a tile": alpha_of_a_tile,
    "two primary pictures": lambda: tile() + full(b"pitm", b"\0\2") * 2,
    "boxes in boxes": lambda: HEADER + nested_boxes(11),
    "properties": lambda: HEADER + full(b"ipma", bytes(5_000_000)),
}
STRIP = (273, 4, 1, 400)
TIFF: Makers = {
    "a progressive jpeg": lambda: jpeg_tiff(slow_scans(2048, 2048, 85), 2048, 2),
    "tiles that share their data": lambda: jpeg_tiff(
        encode(noise(2048, 2048), "JPEG"), 2048, 3, shared=True
    ),
    "a compression of two types": lambda: block_tiff(
        slow_scans(64, 6400, 85), (259, 3, 1, 7), (259, 9, 1, 1), STRIP
    ),
    "a high jpeg": partial(tiff_of_a_high_jpeg, 6400, 1),
    "a jpeg of scans": partial(tiff_of_a_high_jpeg, 64, 60),
    "rationals": partial(tiff_of_many_rationals, 200_000),
    "groups of exif": partial(tiff_of_exif_groups, 200_000),
    "tiles larger than the picture": partial(tiff_of_large_tiles, 187_504, 16, 20),
    "a tile of 900 megapixels": partial(tiff_of_large_tiles, 30_000, 30_000, 1),
    "four billion channels": lambda: block_tiff(
        bytes(4096), (259, 3, 1, 1), STRIP, (277, 4, 1, 2**32 - 1)
    ),
    "strips": lambda: tiff(
        (256, 4, 1, 8), (257, 4, 1, 200_000), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1),
        (273, 4, 200_000, 200), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 200_000, 200),
    ) + bytes(1_000_000),
}  # fmt: skip


class _Bits:
    """A stream of bits, least significant first."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def add(self, value: int, count: int) -> None:
        self.text.append(f"{value:0{count}b}"[::-1])

    def to_bytes(self) -> bytes:
        text = "".join(self.text)[::-1]
        return int(text, 2).to_bytes(-(-len(text) // 8), "little")


def webp_of_code_groups(blocks: int = 256) -> bytes:
    """A lossless WebP with codes of its own for each of blocks × blocks squares of 4 × 4 pixels."""
    bits = _Bits()
    for value, count in ((0x2F, 8), (4 * blocks - 1, 14), (4 * blocks - 1, 14), (0, 4)):
        bits.add(value, count)
    for value, count in ((0, 1), (0, 1), (1, 1), (0, 3), (0, 1)):  # groups of codes, in squares
        bits.add(value, count)
    for _ in range(2):  # green and red have 256 codes of 8 bits
        bits.add(0, 1)
        bits.add(8, 4)
        for length in [0] * 11 + [1]:
            bits.add(length, 3)
        for value, count in ((1, 1), (3, 3), (254, 8)):
            bits.add(value, count)
    for _ in range(3):
        bits.add(0b0001, 4)
    for number in range(blocks**2):
        for value in (number & 255, number >> 8):
            bits.text.append(f"{value:08b}")
    group = "111" + "00000000" + "10000000"  # two symbols: 0 and 1
    bits.text.append(group * 5 * blocks**2)
    bits.text.append("0" * 4 * 16 * blocks**2)
    content = bits.to_bytes()
    content += bytes(len(content) % 2)
    chunks = b"WEBPVP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def webp_with_an_empty_frame_first() -> bytes:
    """The decoder takes the second frame of the animation, which has lossless pixels."""
    side = 250
    vp8l = encode(noise(side, side), "WEBP", lossless=True, method=0)[20:]
    frame = bytes(6) + struct.pack("<I", side - 1)[:3] * 2 + bytes(4)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    body = b"WEBP" + chunk(b"VP8X", b"\x12" + bytes(3) + struct.pack("<I", side - 1)[:3] * 2)
    body += chunk(b"ANIM", bytes(6)) + chunk(b"ANMF", frame)
    body += chunk(b"ANMF", frame + chunk(b"VP8L", vp8l))
    return b"RIFF" + struct.pack("<I", len(body)) + body


WEBP: Makers = {"groups of codes": webp_of_code_groups}
