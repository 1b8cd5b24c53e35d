import io
import sys

import pytest
from PIL import Image
from skimage import data as skimage_data

import profiles
from heic import HEADER, full, grid_of_one_tile, heic
from hostile import resized
from pictures import difference, encode, ramp
from predictor.errors import DamagedImage, RequestError, TooLarge, UnsupportedImage
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


def test_the_primary_image_of_several_is_decoded():
    library = pytest.importorskip("pillow_heif")
    file = library.from_pillow(Image.new("RGB", (64, 64), "blue"))
    file.add_from_pillow(Image.new("RGB", (96, 64), "red"))
    buffer = io.BytesIO()
    file.save(buffer, primary_index=1)
    assert decode(buffer.getvalue(), LIMIT).size == (96, 64)


def test_heic_whose_primary_image_is_hidden_is_damaged():
    """pillow-heif would read the first of the other pictures."""
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


def test_heic_above_the_pixel_limit_is_too_large():
    data = heic(Image.new("RGB", (64, 64)))
    with pytest.raises(TooLarge, match="64 × 64 = 4,096 pixels"):
        decode(data, 4095)
    with pytest.raises(TooLarge):
        decode(resized(data, 20_000, 20_000), LIMIT)


def test_heic_whose_frame_is_larger_than_its_size_is_damaged():
    data = heic(Image.new("RGB", (512, 512)))
    with pytest.raises(DamagedImage):
        decode(resized(data, 64, 64), LIMIT)


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


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_truncated_heic_is_damaged(fraction):
    data = heic(PHOTO)
    with pytest.raises(DamagedImage, match="HEIC"):
        decode(data[: int(len(data) * fraction)], LIMIT)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", [b"Exif", b"mime"])
def test_items_of_exif_and_xmp_are_hidden(version, kind):
    number = b"\0\1" if version == 2 else b"\0\0\0\1"
    item = full(b"infe", number + bytes(2) + kind + b"\0", version)
    hidden = heif.without_metadata(HEADER + item + b"Exif")
    assert hidden == HEADER + item.replace(kind, b"none") + b"Exif"


def test_xmp_does_not_turn_an_avif():
    """Pillow would obey it. The file's own boxes say how it is turned."""
    xmp = b'<x tiff:Orientation="6"/>'
    assert decode(encode(ramp(), "AVIF", xmp=xmp), LIMIT).size == (64, 48)


def described() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "A picture"
    return exif.tobytes()


def test_unreadable_exif_of_an_avif_is_ignored():
    data = encode(ramp(), "AVIF", exif=described())
    assert data.count(described()[6:10]) == 1
    assert decode(data.replace(described()[6:10], b"JUNK"), LIMIT).size == (64, 48)


def test_animated_and_transparent_avif_with_exif_are_decoded():
    frame = ramp().convert("RGBA")
    frame.putalpha(100)
    for options in ({}, {"save_all": True, "append_images": [frame.rotate(9)] * 5}):
        data = encode(frame, "AVIF", exif=described(), **options)
        assert difference(decode(data, LIMIT), decode(encode(frame), LIMIT)) < 5


def test_avif_cut_at_any_length_is_an_error():
    data = encode(ramp(), "AVIF", exif=described())
    for length in range(12, len(data) - 1, 41):
        with pytest.raises(RequestError):
            decode(data[:length], LIMIT)
