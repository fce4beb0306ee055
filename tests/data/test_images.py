import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hcoatnet.data import images
from hcoatnet.data.images import (
    MEAN,
    PIXEL_LIMIT,
    STD,
    PhotoError,
    describe_photo,
    normalise,
    open_photo,
    preprocess,
    resize_photo,
)
from hcoatnet.files import sha256_of_bytes

RED_LEFT = np.zeros((8, 12, 3), dtype=np.uint8)
RED_LEFT[:, :6, 0] = 255
RED_LEFT[:2, :, 1] = 200


def encoded(image, suffix="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


def pixels_of(image, suffix="PNG", **options):
    photo = open_photo(encoded(image, suffix, **options))
    assert photo.mode == "RGB"
    return np.asarray(photo)


def png_header(width, height):
    """A PNG that announces a size and holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "1", "P"])
def test_modes_of_a_png_equal_pillows_own_conversion(mode):
    image = Image.fromarray(RED_LEFT).convert(mode)
    assert np.array_equal(pixels_of(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["BMP", "TIFF", "PNG", "WEBP"])
def test_lossless_formats_keep_every_pixel(suffix):
    options = {"lossless": True, "exact": True} if suffix == "WEBP" else {}
    assert np.array_equal(pixels_of(Image.fromarray(RED_LEFT), suffix, **options), RED_LEFT)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_stand_on_white(mode):
    alpha = np.zeros((8, 12), dtype=np.uint8)
    alpha[:, 6:] = 255
    image = Image.fromarray(np.dstack([RED_LEFT, alpha])).convert(mode)
    found = pixels_of(image)
    assert (found[:, :6] == 255).all()
    assert np.array_equal(found[:, 6:], np.asarray(image.convert("RGB"))[:, 6:])


@pytest.mark.parametrize("suffix", ["PNG", "GIF"])
def test_transparent_palette_entries_stand_on_white(suffix):
    image = Image.fromarray((np.arange(96).reshape(8, 12) >= 48).astype(np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 90, 80, 70])
    found = pixels_of(image, suffix, transparency=0)
    assert (found[:4] == 255).all()
    assert (found[4:] == [90, 80, 70]).all()


def test_half_transparent_black_on_white_is_grey():
    found = pixels_of(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))
    assert np.abs(found.astype(int) - 127).max() <= 1


def test_cmyk_jpeg_looks_as_it_did_before():
    # Pillow stores CMYK JPEGs inverted, as Adobe does, with the marker that says so.
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    content = encoded(image, "JPEG", quality=95)
    assert b"Adobe" in content
    assert np.abs(np.asarray(open_photo(content)).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_257_whatever_the_photo_holds(suffix):
    values = np.array([[0, 128, 129, 257, 385, 386, 30000, 65407, 65535]], dtype=np.uint16)
    expected = np.floor(values / 257 + 0.5).astype(np.uint8)
    assert np.array_equal(pixels_of(Image.fromarray(values), suffix)[:, :, 1], expected)
    assert np.array_equal(pixels_of(Image.fromarray(values[:, :3]), suffix)[:, :, 1], expected[:, :3])


def test_thirty_two_bit_and_float_grey_have_a_fixed_range():
    whole = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.int32))
    assert pixels_of(whole, "TIFF")[0, :, 0].tolist() == [0, 1, 255]
    real = Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))
    assert pixels_of(real, "TIFF")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5, 234.0])
def test_float_grey_beyond_its_range_is_refused(value):
    with pytest.raises(PhotoError, match="beyond 0 to 1") as caught:
        open_photo(encoded(Image.fromarray(np.array([[0.5, value]], dtype=np.float32)), "TIFF"))
    assert caught.value.problem.rule == "unreadable"


@pytest.mark.parametrize("suffix", ["GIF", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken(suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "WEBP" else {}
    found = pixels_of(frames[0], suffix, save_all=True, append_images=frames[1:], **options)
    assert (found == [255, 0, 0]).all()


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(suffix, orientation):
    image = Image.fromarray(RED_LEFT)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if suffix == "WEBP" else {}
    content = encoded(image, suffix, exif=exif, **options)
    with Image.open(BytesIO(content)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    found = np.asarray(open_photo(content))
    assert found.shape == ((12, 8, 3) if orientation >= 5 else (8, 12, 3))
    assert np.array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_photo():
    content = encoded(Image.fromarray(RED_LEFT), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert open_photo(content).size == (12, 8)


def test_suffix_does_not_matter(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(RED_LEFT)))
    assert np.array_equal(np.asarray(open_photo(path)), RED_LEFT)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9", "not an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "truncated"),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900], "truncated"),
        (encoded(Image.effect_noise((64, 64), 90), "BMP")[:900], "truncated"),
        (png_header(20_000, 20_000), "too many pixels"),
        (png_header(10_001, 10_000), "too many pixels"),
        (png_header(0, 10), "unreadable"),
    ],
)
def test_what_is_no_whole_photo_is_refused_by_name(content, rule, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for read in (open_photo, describe_photo):
        with pytest.raises(PhotoError, match=r"photo\.jpg: ") as caught:
            read(path)
        assert caught.value.problem.rule == rule
        assert caught.value.problem.fix
    with pytest.raises(PhotoError, match="upload 3: "):
        open_photo(content, "upload 3")


def test_errors_pass_from_one_process_to_another():
    with pytest.raises(PhotoError) as caught:
        open_photo(b"", "photo 7")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.problem) == (str(caught.value), caught.value.problem)


def test_heic_is_told_apart():
    with pytest.raises(PhotoError, match="HEIC"):
        open_photo(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.jpg", tmp_path, tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(PhotoError) as caught:
            open_photo(path)
        assert caught.value.problem.rule in {"missing", "unreadable"}


def test_failing_disk_is_reported_as_such(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(PhotoError, match=r"cannot be read .*Permission denied"):
        open_photo(path)


@pytest.mark.parametrize("suffix", ["GIF", "TIFF", "PNG", "BMP", "WEBP"])
def test_pixel_limit_counts_before_decoding_in_every_format(suffix, monkeypatch):
    monkeypatch.setattr(images, "PIXEL_LIMIT", 95)
    content = encoded(Image.fromarray(RED_LEFT), suffix)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(PhotoError, match="12 × 8 pixels"):
        open_photo(content)


@pytest.mark.parametrize("suffix", ["GIF", "TIFF", "PNG", "JPEG", "BMP", "WEBP"])
def test_pillows_own_limit_neither_warns_nor_changes(suffix, monkeypatch):
    options = {"disposal": 2} if suffix == "GIF" else {}  # has Pillow check the frame's size by itself
    content = encoded(Image.fromarray(RED_LEFT), suffix, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    monkeypatch.setattr(images, "PIXEL_LIMIT", 100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert open_photo(content).size == (12, 8)
    assert caught == []
    assert Image.MAX_IMAGE_PIXELS == 60


def test_pillows_limit_of_an_embedding_program_becomes_our_error(monkeypatch):
    content = encoded(Image.fromarray(RED_LEFT), "TIFF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(PhotoError) as caught:
        open_photo(content)
    assert caught.value.problem.rule == "too many pixels"


def test_importing_leaves_pillows_limit_alone():
    assert PIXEL_LIMIT == 100_000_000
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3


WHOLE = {
    suffix: encoded(Image.effect_noise((40, 30), 60).convert("RGB"), suffix)
    for suffix in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_damaged_files_open_or_raise_our_error_alone(suffix, data):
    content = bytearray(WHOLE[suffix])
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            photo = open_photo(content)
        except PhotoError as error:
            assert error.problem.rule
        else:
            assert photo.mode == "RGB"


def test_describe_gives_hash_and_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(RED_LEFT), "JPEG", exif=exif))
    facts = describe_photo(path)
    assert (facts.sha256, facts.width, facts.height) == (sha256_of_bytes(path.read_bytes()), 8, 12)


def test_many_threads_read_the_same_pixels():
    contents = [encoded(Image.effect_noise((64, 48), 50).convert("RGB"), suffix) for suffix in ("JPEG", "TIFF", "GIF")]
    expected = [np.asarray(open_photo(content)) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(open_photo, contents * 20))
    assert all(np.array_equal(np.asarray(photo), expected[place % 3]) for place, photo in enumerate(found))


@pytest.mark.parametrize("size", [1, 7, 32])
def test_resizing_covers_the_whole_photo(size):
    photo = Image.effect_noise((50, 31), 80).convert("RGB")
    found = resize_photo(photo, size)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC)))
    flat = resize_photo(Image.new("RGB", (50, 31), (9, 99, 199)), size)
    assert (flat == [9, 99, 199]).all()


def test_normalised_values_equal_the_definition_in_float64():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    found = normalise(pixels)
    expected = (pixels / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert found.dtype == np.float32
    assert found.shape == (3, 5, 5)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), rtol=0, atol=1e-6)
    assert MEAN.dtype == STD.dtype == np.float32


def test_preprocess_is_resize_then_normalise():
    photo = Image.effect_noise((50, 31), 80).convert("RGB")
    assert np.array_equal(preprocess(photo, 16), normalise(resize_photo(photo, 16)))
