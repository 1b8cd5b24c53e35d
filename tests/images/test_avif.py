"""AVIF: frames, layers and samples are counted."""

import struct

import pytest
from PIL import Image

from pictures import avif_of_frames, encode
from predictor.errors import TooLarge
from predictor.images import av1, avif
from predictor.images.decoding import decode

LIMIT = 50_000_000


def test_avif_with_many_frames_in_an_item_is_too_large():
    assert decode(avif_of_frames(2), LIMIT)
    with pytest.raises(TooLarge, match="AV1 frames"):
        decode(avif_of_frames(3), LIMIT)


def test_a_redundant_frame_header_is_counted():
    """A decoder that has seen no other header takes it."""
    frame = struct.pack("B", 6 << 3 | 2)
    with pytest.raises(TooLarge, match="AV1 frames"):
        decode(avif_of_frames(3).replace(frame, struct.pack("B", 7 << 3 | 2)), LIMIT)


def test_a_frame_with_a_size_of_its_own_is_too_large():
    """4 kB whose sequence header said 1 x 1 pixels took 1.3 s and 0.5 GB."""
    data = animated_avif()
    begin, end = next(iter(avif._images(data)))
    frame = next(at for kind, at in avif._obus(data, begin, end) if kind == 6)
    # Bits: not decoded before, a key frame (two), shown, and two of its tools; then a size follows.
    assert data[frame] & 0b11111010 == 0b00010000
    own = data[:frame] + bytes([data[frame] | 0b10]) + data[frame + 1 :]
    with pytest.raises(TooLarge, match="several sizes"):
        decode(own, LIMIT)


@pytest.mark.parametrize(
    ("bits", "sequence"),
    [
        ("0001 0 0 1", {}),
        ("0001 0 1 1 1", {}),
        ("0001 0 1", {"tools": 0}),
        ("0001 0 1 1", {"tools": 1}),
        ("0001 0 1", {"tools": 1, "vectors": 0}),
        ("0001 0 0 101 1", {"id_bits": 3}),
        ("0000 1 1 0 0 1", {}),  # not shown: a bit more, and whether errors may be in it
        ("0111 0 0", {}),  # a frame that switches
    ],
)
def test_the_size_of_a_frame_is_found_behind_what_its_sequence_asks_for(bits, sequence):
    bits = bits.replace(" ", "")
    one, other = (int(text.ljust(16, "0"), 2).to_bytes(2, "big") for text in (bits, bits[:-1]))
    sequence = av1.Sequence(1, False, **sequence)
    is_switch = bits.startswith("011")
    assert av1.has_own_size(one, sequence)
    assert av1.has_own_size(other, sequence) == is_switch
    assert not av1.has_own_size(one, sequence._replace(is_still=True))


def test_avif_whose_first_sample_has_many_frames_is_too_large():
    data = animated_avif()
    size = data.index(b"stsz") + 16  # of the first sample, which then has the others inside
    whole = len(data) - data.index(b"mdat") - 4
    with pytest.raises(TooLarge, match="AV1 frames"):
        decode(data[:size] + whole.to_bytes(4, "big") + data[size + 4 :], LIMIT)


@pytest.mark.parametrize("kind", [b"lsel", b"a1op", b"a1lx"])
def test_avif_with_layers_is_too_large(kind):
    with pytest.raises(TooLarge, match="layers"):
        decode(avif_of_frames(1).replace(b"pixi", kind), LIMIT)


def test_avif_in_pieces_is_too_large():
    data = avif_of_frames(1)
    extents = data.index(b"iloc") + 16
    with pytest.raises(TooLarge, match="pieces"):
        decode(data[:extents] + b"\0\2" + data[extents + 2 :], LIMIT)


def test_avif_frame_larger_than_its_picture_is_counted():
    size = b"ispe\0\0\0\0" + struct.pack(">II", 64, 48)
    data = avif_of_frames(1).replace(size, size[:8] + struct.pack(">II", 16, 12))
    assert decode(data, 64 * 48 // 2).size == (16, 12)
    with pytest.raises(TooLarge, match="frames"):
        decode(data, 64 * 48 // 2 - 1)


def test_avif_with_much_metadata_is_too_large():
    data = encode(Image.new("RGB", (64, 48)), "AVIF")
    at = data.index(b"meta") - 4
    (size,) = struct.unpack_from(">I", data, at)
    filling = struct.pack(">I4s", 1_000_008, b"free") + bytes(1_000_000)
    meta = struct.pack(">I", size + len(filling)) + data[at + 4 : at + size] + filling
    with pytest.raises(TooLarge, match="metadata"):
        decode(data[:at] + meta + data[at + size :], LIMIT)


def animated_avif():
    frame = Image.effect_noise((64, 48), 50)
    return encode(frame, "AVIF", save_all=True, append_images=[frame.rotate(n) for n in range(9)])


def test_animated_avif_with_alpha_and_exif_is_decoded():
    assert decode(animated_avif(), LIMIT)
    frame = Image.effect_noise((64, 48), 50).convert("RGBA")
    frame.putalpha(100)
    exif = Image.Exif()
    exif[0x010E] = "A picture"
    for options in ({}, {"save_all": True, "append_images": [frame.rotate(9)] * 5}):
        assert decode(encode(frame, "AVIF", exif=exif, **options), LIMIT)
