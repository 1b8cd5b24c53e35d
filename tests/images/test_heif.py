import io
import struct
import sys

import pytest
from PIL import Image
from skimage import data as skimage_data

import profiles
from heic import HEADER, box, full, grid_of_one_tile, heic
from pictures import difference, encode, ramp
from predictor.errors import DamagedImage, TooLarge, UnsupportedImage
from predictor.images import heif
from predictor.images.decoding import begins_like_an_image, decode, file_suffixes
from predictor.images.profile import to_srgb
from profiles import converted

LIMIT = 50_000_000
PHOTO = Image.fromarray(skimage_data.chelsea()).resize((300, 200))
UNTURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def test_avif_is_not_taken_for_heic():
    assert not heif.is_heic(encode(ramp(), "AVIF"))


def test_without_the_library_heic_is_unsupported_and_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert begins_like_an_image(HEADER)
    assert ".heic" not in file_suffixes()
    with pytest.raises(UnsupportedImage, match="HEIC.*Convert it to JPEG"):
        decode(HEADER, LIMIT)


def test_with_the_library_heic_files_are_found_in_folders():
    pytest.importorskip("pillow_heif")
    assert {".heic", ".heif"} <= file_suffixes()


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("options", [{}, {"chroma": "444"}, {"tile_size": 64}], ids=str)
def test_heic_is_decoded_to_8_bits(bits, options):
    decoded = decode(heic(PHOTO, bits, **options), LIMIT)
    assert (decoded.size, decoded.mode) == (PHOTO.size, "RGB")
    assert difference(decoded, PHOTO) < 3


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_grey_and_transparent_heic_become_rgb_over_white(mode):
    image = PHOTO.convert(mode)
    if "A" in mode:
        image.putalpha(Image.new("L", image.size, 0))
    decoded = decode(heic(image), LIMIT)
    expected = Image.new("RGB", PHOTO.size, "white") if "A" in mode else image.convert("RGB")
    assert difference(decoded, expected) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation):
    """Phones write the orientation as boxes (irot, imir) and as EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = ramp().resize((128, 96))
    turned = image.transpose(UNTURN[orientation]) if orientation in UNTURN else image
    turned.info["exif"] = exif.tobytes()
    decoded = decode(heic(turned), LIMIT)
    assert decoded.size == (128, 96)
    assert difference(decoded, image) < 3


def test_exif_orientation_alone_does_not_turn_a_heic():
    """The standard has boxes for it; phones write both."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = ramp().resize((128, 96))
    image.info["exif"] = exif.tobytes()
    data = heic(image)
    assert b"irot" in data
    data = data.replace(b"irot", b"free")
    assert decode(data, LIMIT).size == (128, 96)


def test_heic_that_turns_a_picture_many_times_is_too_large(monkeypatch):
    """The decoder turns it each time. A photo has at most one box of each kind."""
    image, exif = ramp().resize((128, 96)), Image.Exif()
    exif[0x0112] = 7
    image.info["exif"] = exif.tobytes()
    data = heic(image)
    assert {data.count(b"irot"), data.count(b"imir")} == {1}
    assert decode(data, LIMIT)
    monkeypatch.setattr(heif, "TURNS", (b"irot",))
    assert decode(data, LIMIT)
    with pytest.raises(TooLarge, match="turns"):
        decode(data.replace(b"imir", b"irot"), LIMIT)


def test_the_primary_image_of_several_is_decoded():
    library = pytest.importorskip("pillow_heif")
    file = library.from_pillow(Image.new("RGB", (64, 64), "blue"))
    file.add_from_pillow(Image.new("RGB", (96, 64), "red"))
    buffer = io.BytesIO()
    file.save(buffer, primary_index=1)
    assert decode(buffer.getvalue(), LIMIT).size == (96, 64)


def test_heic_with_a_video_is_too_large():
    """libheif would make an object for each of its frames: 1.5 kB took 1.1 GB."""
    with pytest.raises(TooLarge, match="video"):
        decode(heic(Image.new("RGB", (64, 64))) + box(b"moov", b""), LIMIT)


def test_heic_whose_primary_image_is_hidden_is_damaged():
    """pillow-heif would read the first of the other pictures, whose pixels are not counted."""
    tile = heic(Image.effect_noise((64, 64), 50).convert("RGB"))
    assert decode(grid_of_one_tile(tile, 2, (128, 128)), LIMIT).size == (128, 128)
    with pytest.raises(DamagedImage):
        decode(grid_of_one_tile(tile, 2, (128, 128), hidden=True), LIMIT)


def test_display_p3_in_a_heic_is_converted():
    """iPhones embed the profile; others name its primaries only."""
    wide = converted(PHOTO, profiles.DISPLAY_P3)
    named = heic(wide, color_primaries=12)
    wide.info["icc_profile"] = profiles.DISPLAY_P3
    for data in (heic(wide), heic(wide, 10), named):
        assert difference(to_srgb(decode(data, LIMIT)), PHOTO) < 3
        assert difference(decode(data, LIMIT), PHOTO) > 3  # if the profile were ignored


def with_size(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def test_heic_above_the_pixel_limit_is_refused_by_its_header(monkeypatch):
    data = heic(Image.new("RGB", (64, 64)))
    monkeypatch.setattr("pillow_heif.HeifImageFile.load", None)
    with pytest.raises(TooLarge, match="64 × 64 = 4,096 pixels"):
        decode(data, 4095)
    with pytest.raises(TooLarge):
        decode(with_size(data, 20_000, 20_000), LIMIT)


def test_heic_whose_frame_is_larger_than_its_size_is_damaged():
    data = heic(Image.new("RGB", (512, 512)))
    with pytest.raises(DamagedImage):
        decode(with_size(data, 64, 64), LIMIT)


def test_heic_tiles_are_counted_as_often_as_they_are_used(monkeypatch):
    tile = heic(Image.new("RGB", (512, 512), (200, 60, 40)))
    data = grid_of_one_tile(tile, 4, (64, 64))
    assert heif.check(data).pixels == 16 * 512 * 512 // 2
    monkeypatch.setattr("pillow_heif.HeifImageFile.load", None)
    with pytest.raises(TooLarge, match="tiles"):
        decode(data, 2_000_000)


def test_small_tiles_count_for_the_time_to_begin_with_one():
    tile = heic(Image.new("RGB", (64, 64)))
    pixels = heif.check(grid_of_one_tile(tile, 30, (64, 64))).pixels
    assert pixels == 30 * 30 * heif.TILE_PIXELS // 2


def test_heic_of_a_phone_with_tiles_is_not_counted_twice():
    data = heic(Image.new("RGB", (1024, 768)), tile_size=256)
    assert heif.check(data).pixels == 1024 * 768 // 2


def test_heic_with_too_many_tiles_or_nested_pictures_is_too_large():
    tile = heic(Image.new("RGB", (64, 64)))
    with pytest.raises(TooLarge, match="too many tiles"):
        heif.check(grid_of_one_tile(tile, 71, (64, 64)))
    nested = grid_of_one_tile(tile, 1, (64, 64))
    itself = nested.replace(
        struct.pack(">4s3H", b"dimg", 2, 1, 1), struct.pack(">4s3H", b"dimg", 2, 1, 2)
    )
    with pytest.raises(TooLarge, match="pictures of pictures"):
        heif.check(itself)


def test_overlay_whose_canvas_libheif_would_allocate_is_refused():
    """The canvas may have any size, whatever the header says: 32,000² pixels in 500 bytes."""
    tile = heic(Image.new("RGB", (64, 64)))
    assert decode(grid_of_one_tile(tile, 1, (64, 64)), LIMIT).size == (64, 64)
    with pytest.raises(DamagedImage, match="unsupported variant"):
        decode(grid_of_one_tile(tile, 1, (64, 64), overlay=True), LIMIT)


def test_pictures_of_other_types_beside_the_photo_do_not_matter():
    """Cameras write thumbnails as JPEG (``jpeg``), depth in codecs that libheif does not read."""
    library = pytest.importorskip("pillow_heif")
    file = library.from_pillow(PHOTO)
    file.add_from_pillow(Image.new("RGB", (64, 64), "red"))
    buffer = io.BytesIO()
    file.save(buffer)
    first, second = (full(b"infe", bytes([0, n, 0, 0]) + b"hvc1\0", 2) for n in (1, 2))
    assert first in buffer.getvalue()
    for kind in (b"iovl", b"jpeg", b"unci", b"tmap", b"uri "):
        data = buffer.getvalue().replace(second, second.replace(b"hvc1", kind))
        assert data != buffer.getvalue()
        assert decode(data, LIMIT).size == PHOTO.size


PRIMARY = full(b"pitm", b"\0\3")
SIZES = b"".join(full(b"ispe", struct.pack(">2I", n, n)) for n in (64, 4096))
LINKS = full(b"ipma", struct.pack(">I", 3) + b"\0\1\1\1\0\2\1\2\0\3\1\1")


def test_alpha_of_a_tile_is_counted_with_each_tile():
    tiles = box(b"dimg", struct.pack(">2H4H", 3, 4, 1, 1, 1, 1))
    references = full(b"iref", tiles + box(b"auxl", struct.pack(">3H", 2, 1, 1)))
    data = HEADER + PRIMARY + box(b"ipco", SIZES) + LINKS + references
    assert heif.check(data).pixels == 4 * (64**2 + 4096**2) // 2


@pytest.mark.parametrize(
    "lists",
    [PRIMARY * 2, box(b"ipco", SIZES) * 2, box(b"ipco", box(b"trak", box(b"free", b"")) + SIZES)],
    ids=["pitm", "ipco", "nested"],
)
def test_heic_that_libheif_might_read_otherwise_is_too_large(lists):
    """If the numbers of the properties are misread, a large tile counts as a small one."""
    with pytest.raises(TooLarge, match="several lists"):
        heif.check(HEADER + lists)


def test_long_lists_of_properties_are_refused_before_they_are_read(monkeypatch):
    monkeypatch.setattr(heif, "_Items", None)
    for data in (full(b"ipma", bytes(1_000_001)), full(b"meta", bytes(1_000_001))):
        with pytest.raises(TooLarge, match="metadata"):
            heif.check(HEADER + data)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_truncated_heic_is_damaged(fraction):
    data = heic(PHOTO)
    with pytest.raises(DamagedImage, match="HEIC"):
        decode(data[: int(len(data) * fraction)], LIMIT)


def test_exif_and_xmp_of_a_heic_are_not_read(monkeypatch):
    image = PHOTO.copy()
    image.info |= {"exif": b"Exif\0\0MM\0*\0\0\0\x08" + bytes(50_000), "xmp": b"<x/>" * 9999}
    data, read = heic(image), []
    monkeypatch.setattr("pillow_heif.as_plugin.set_orientation", lambda info: read.append(info))
    decode(data, LIMIT)
    assert (read[0].get("exif"), read[0].get("xmp")) == (None, None)
