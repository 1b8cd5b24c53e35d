"""AVIF files whose boxes would keep a parser busy, and EXIF in all places."""

import struct

import pytest
from PIL import Image

from pictures import encode
from predictor.errors import RequestError, TooLarge
from predictor.images import avif, heif
from predictor.images.decoding import decode

LIMIT = 50_000_000
FTYP = b"\0\0\0\x14ftypavif\0\0\0\0avif"
OTHER, ORIENTATION = (struct.pack("<HHII", tag, 3, 1, 3) for tag in (0x0100, 0x0112))


def box(kind, content=b""):
    return struct.pack(">I4s", len(content) + 8, kind) + content


def items(count, *, at, size, inside=False):
    """An iloc box, version 1, with offsets and lengths of 32 bits."""
    one = struct.pack(">HHHHII", 1, inside, 0, 1, at, size)
    return box(b"iloc", b"\1\0\0\0\x44\0" + struct.pack(">H", count) + one * count)


def test_several_item_data_boxes_are_too_large():
    """Each item would be looked for in each of them."""
    with pytest.raises(TooLarge):
        avif.check(FTYP + items(1000, at=2**31, size=1, inside=True) + box(b"idat") * 1000)


def test_the_size_of_an_obu_has_a_limited_length():
    """A number of 300,000 bytes would take quadratic time: 9 s."""
    length = 300_000
    head = FTYP + items(1, at=0, size=0)
    data = FTYP + items(1, at=len(head) + 8, size=length) + box(b"mdat", b"\x12" + b"\xff" * length)
    assert avif.check(data).pixels == 0


def test_an_item_without_a_piece_is_too_large():
    """Decoders read no offset of it. To read one would put the check out of step with them."""
    head = FTYP + items(1, at=0, size=0)
    with pytest.raises(TooLarge, match="pieces"):
        avif.check(
            head.replace(struct.pack(">HHHHII", 1, 0, 0, 1, 0, 0), struct.pack(">HHHH", 1, 0, 0, 0))
        )


@pytest.mark.parametrize("order", [1, -1])
def test_an_image_needs_a_sequence_header_of_its_own(order):
    """A decoder would take that of the tile before, in an order that the list does not say."""
    data = encode(Image.new("RGB", (640, 480)), "AVIF")
    payload = data[data.index(b"mdat") + 4 :]
    frame_at = next(at for kind, at in avif._obus(payload, 0, len(payload)) if kind == 6) - 2
    at = len(FTYP) + 8 + 16 + 2 * 16
    entries = [(at, len(payload)), (at + frame_at, len(payload) - frame_at)][::order]
    iloc = b"".join(struct.pack(">HHHHII", 1, 0, 0, 1, *entry) for entry in entries)
    head = FTYP + box(b"iloc", b"\1\0\0\0\x44\0" + struct.pack(">H", 2) + iloc)
    with pytest.raises(TooLarge, match="one sequence header"):
        avif.check(head + box(b"mdat", payload))


def test_only_images_have_frames():
    """XMP begins like a frame of AV1."""
    xmp = b"<x:xmpmeta/>"
    infe = box(b"infe", b"\2\0\0\0\0\1\0\0mime\0")
    meta = box(b"meta", bytes(4) + box(b"iinf", bytes(4) + b"\0\1" + infe))
    at = len(FTYP) + len(meta) + len(items(1, at=0, size=0)) + 8
    file = FTYP + meta + items(1, at=at, size=len(xmp)) + box(b"mdat", xmp)
    assert avif.check(file).pixels == 0
    with pytest.raises(TooLarge, match="one sequence header"):
        avif.check(file.replace(b"mime", b"av01"))


@pytest.mark.parametrize(("chunks", "samples"), [(101, 100), (20_000, 1), (1, 2**31)])
def test_a_track_of_many_samples_is_too_large(chunks, samples):
    entry = struct.pack(">4I", 1, 1, samples, 1)
    table = box(b"stsc", bytes(4) + entry)
    table += box(b"stco", bytes(4) + struct.pack(">I", chunks) + bytes(4))
    moov = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table)))))
    with pytest.raises(TooLarge, match="frames"):
        avif.check(FTYP + moov)


def test_several_operating_points_are_layers():
    """To read 32 of them in each of 5,000 items, all at the same 80 bytes, took 0.6 s."""
    header = b"\x01\xf0" + bytes(80)  # 7 bits, and in 5 bits the number less one
    head = FTYP + items(1, at=0, size=0)
    obu = b"\x0a" + bytes([len(header)]) + header
    data = FTYP + items(1, at=len(head) + 8, size=len(obu)) + box(b"mdat", obu)
    with pytest.raises(TooLarge, match="layers"):
        avif.check(data)


def test_long_tables_of_samples_are_too_large_wherever_they_are():
    with pytest.raises(TooLarge, match="metadata"):
        avif.check(FTYP + box(b"stsc", bytes(1_000_001)))


@pytest.mark.parametrize("kind", [b"ipma", b"iref", b"dimg", b"stsc"])
def test_long_lists_of_parts_are_too_large(kind):
    """libavif searches a list for each entry of another: 128 kB took 16 s."""
    assert avif.check(FTYP + box(kind, bytes(2_000))).pixels == 0
    with pytest.raises(TooLarge, match="long lists"):
        avif.check(FTYP + box(kind, bytes(9_000)))


def test_two_lists_of_samples_are_too_large():
    """libavif takes the size of the first sample from the one, and this check from the other."""
    with pytest.raises(TooLarge, match="two lists"):
        avif.check(FTYP + box(b"stsz", bytes(12)) * 2)


@pytest.mark.parametrize("kind", [b"ispe", b"tkhd"])
def test_the_size_to_which_a_frame_is_scaled_counts(kind):
    size = (6000, 4000) if kind == b"ispe" else (6000 << 16, 4000 << 16)
    found = avif.check(FTYP + box(kind, bytes(4) + struct.pack(">II", *size)))
    assert found.pixels == 24_000_000


@pytest.mark.parametrize("check", [avif.check, heif.check])
def test_boxes_in_boxes_in_boxes_are_too_large(check):
    """Each box would pass through as many generators: 151 kB took 2.8 s."""
    data = box(b"free") * 18_000
    for _ in range(11):
        data = box(b"trak", data)
    with pytest.raises(TooLarge, match="boxes in boxes"):
        check(FTYP + data)


@pytest.mark.parametrize("check", [avif.check, heif.check])
def test_too_many_boxes_are_too_large(check):
    with pytest.raises(TooLarge, match="boxes"):
        check(FTYP + box(b"free") * 20_001)


def avif_with_exif(**options):
    """An AVIF with a tag of EXIF that Pillow would obey, and would not write itself."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + OTHER + bytes(4)
    data = encode(Image.effect_noise((64, 48), 50), "AVIF", exif=exif, **options)
    return data.replace(OTHER, ORIENTATION)


@pytest.mark.parametrize("several", [False, True], ids=["picture", "sequence"])
def test_exif_is_hidden_from_pillow(monkeypatch, several):
    """Also that of a track."""
    options = {"save_all": True, "append_images": [Image.effect_noise((64, 48), 50)]}
    data = avif_with_exif(**(options if several else {}))
    assert b"Exif" in data
    decoded = []
    monkeypatch.setattr(Image.Exif, "load", lambda _, content: decoded.append(content))
    decode(data, LIMIT)
    assert decoded in ([], [b""], [None])


def test_a_name_cannot_hide_exif():
    """The item's version is read in its place, not found by a pattern."""
    first = box(b"infe", b"\2\0\0\0\0\1\0\0av01\0infe")
    exif = box(b"infe", b"\2Exif\2\0\0ExifExif\0")
    iinf = box(b"iinf", bytes(4) + b"\0\2" + first + exif)
    hidden = avif.check(FTYP + box(b"meta", bytes(4) + iinf)).data
    assert hidden.endswith(b"\2Exif\2\0\0noneExif\0")


@pytest.mark.parametrize("version", [0, 1])
def test_items_are_found_in_both_versions_of_their_list(version):
    item = box(b"infe", b"\3\0\0\0\0\0\0\1\0\0Exif\0" if version else b"\2\0\0\0\0\1\0\0Exif\0")
    count = struct.pack(">I" if version else ">H", 1)
    iinf = box(b"iinf", bytes([version, 0, 0, 0]) + count + item)
    hidden = avif.check(FTYP + box(b"meta", bytes(4) + iinf)).data
    assert b"Exif" not in hidden


def test_a_cut_file_is_damaged_at_every_length():
    data = avif_with_exif()
    for length in range(12, len(data) - 1, 7):
        with pytest.raises(RequestError):
            decode(data[:length], LIMIT)
