import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, IptcImagePlugin, PngImagePlugin

from hcoatnet.data.audit.containers import what_is_missing
from hcoatnet.data.audit.integrity import RULES, look_at, problems_of, weight_of
from hcoatnet.data.images import PhotoError, open_photo

SECRET = "Erika Mustermann"


def picture(seed=0, size=(120, 90)):
    """A smooth colourful picture, as a photo is, with some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def encoded(image, format="JPEG", **options):
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def findings(content, path="photo.jpg"):
    facts, _ = look_at(content, path)
    return {problem.rule: problem for problem in problems_of(facts, path)}


def jpeg_with(**options):
    return encoded(picture(), quality=90, **options)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("size", [(120, 90), (97, 71)])
def test_a_whole_photo_has_no_findings(options, size):
    assert findings(encoded(picture(size=size), quality=90, **options)) == {}


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_whole_formats_have_none_either(format):
    assert findings(encoded(picture(), format), f"photo.{format.lower()}") == {}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_cut_and_closed_again_is_found_although_it_opens(share, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    whole = jpeg_with(exif=exif)
    cut = whole[: int(share * len(whole))] + b"\xff\xd9"
    open_photo(cut)
    assert "grey" in findings(cut)["maybe cut"].found
    assert "maybe cut" not in findings(whole)


def test_a_progressive_jpeg_cut_between_scans_is_found_although_it_opens():
    whole = jpeg_with(progressive=True)
    scans = [place for place in range(len(whole) - 1) if whole[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for place in scans[1:]:
        cut = whole[:place] + b"\xff\xd9"
        open_photo(cut)
        assert "progressive" in findings(cut)["maybe cut"].found
    assert what_is_missing(whole) is None


def test_files_without_their_end_are_found():
    assert what_is_missing(jpeg_with()[:-2]) == "no end marker"
    assert what_is_missing(encoded(picture(), "PNG")[:-12]) == "no end chunk"
    assert "bytes" in what_is_missing(encoded(picture(), "WEBP")[:-9])


def test_a_grey_photo_is_not_taken_for_a_cut_one():
    assert "maybe cut" not in findings(encoded(Image.new("RGB", (80, 80), (128, 128, 128))))


@pytest.mark.parametrize("length", [0, 10, 400])
def test_what_cannot_be_opened_is_an_error(length):
    with pytest.raises(PhotoError) as caught:
        look_at(jpeg_with()[:length], "photo.jpg")
    assert weight_of(caught.value.problem.rule) == "error"


def test_suffixes_are_compared_with_the_format():
    assert findings(encoded(picture(), "PNG"), "photo.jpg")["wrong suffix"].found == "PNG called .jpg"
    assert findings(jpeg_with(), "photo")["wrong suffix"].found == "JPEG called nothing"
    assert findings(jpeg_with(), "PHOTO.JPEG") == {}


def test_shape_and_colour():
    assert "63" in findings(encoded(picture(size=(80, 63))))["tiny"].found
    assert findings(encoded(picture(size=(64, 64)))) == {}
    assert set(findings(encoded(picture(size=(310, 100))))) == {"extreme aspect"}
    assert findings(encoded(picture(size=(300, 100)))) == {}
    assert set(findings(encoded(picture().convert("L")))) == {"grayscale"}
    assert set(findings(encoded(picture().convert("L").convert("RGB")))) == {"grayscale"}
    black = np.clip(np.random.default_rng(0).normal(4, 3, (200, 200, 3)), 0, 255).astype(np.uint8)
    assert set(findings(encoded(Image.fromarray(black)))) == {"constant"}
    assert "CMYK" in findings(encoded(picture().convert("CMYK")))["colour mode"].found
    assert "RGBA" in findings(encoded(picture().convert("RGBA"), "PNG"), "a.png")["colour mode"].found


def everything_private():
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = SECRET
    exif[ExifTags.Base.ImageDescription] = "   "
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = "S123"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    return exif


def test_metadata_are_named_and_never_repeated():
    found = findings(jpeg_with(exif=everything_private(), comment=SECRET.encode()))
    assert found["place in metadata"].found == "EXIF GPS position"
    assert found["name or text in metadata"].found == "EXIF Artist, JPEG comment"
    assert found["serial number in metadata"].found == "EXIF BodySerialNumber"
    assert found["date in metadata"].found == "EXIF DateTimeOriginal"
    assert found["rotated by EXIF"].found == "orientation 6"
    assert {weight_of(rule) for rule in found} == {"privacy", "note"}
    assert not any(SECRET in text for problem in found.values() for text in (problem.found, problem.fix))


def test_xmp_iptc_and_png_texts():
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>E</dc:creator><exif:GPSLatitude>1</exif:GPSLatitude></x:xmpmeta>'
    found = findings(jpeg_with(xmp=packet))
    assert found["name or text in metadata"].found == "XMP dc:creator"
    assert found["place in metadata"].found == "XMP exif:GPSLatitude"
    by_line = b"\x1c\x02\x50\x00\x05Erika"
    resource = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(by_line).to_bytes(4, "big") + by_line
    whole = jpeg_with()
    content = whole[:2] + b"\xff\xed" + (len(resource) + 2).to_bytes(2, "big") + resource + whole[2:]
    assert IptcImagePlugin.getiptcinfo(Image.open(BytesIO(content)))[(2, 80)] == b"Erika"
    assert findings(content)["name or text in metadata"].found == "IPTC by-line"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", SECRET)
    texts.add_itxt("Comment", "x")
    found = findings(encoded(picture(), "PNG", pnginfo=texts), "a.png")
    assert found["name or text in metadata"].found == "PNG text Author, PNG text Comment"


def test_what_stands_after_the_end_is_found():
    assert findings(jpeg_with() + b"video" * 20)["data after the end"].found == "100 bytes"
    assert findings(encoded(picture(), "PNG") + b"x" * 9, "a.png")["data after the end"].found == "9 bytes"
    assert findings(jpeg_with() + b"\0" * 50) == {}


def test_damaged_metadata_do_not_stop_the_look():
    whole = jpeg_with()
    warnings.simplefilter("ignore")
    for body in (b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0" + b"\xff" * 40, b"Photoshop 3.0\0" + b"8BIM" * 9):
        content = whole[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + whole[2:]
        assert set(findings(content)) <= {"rotated by EXIF"}


def test_every_rule_has_a_weight_and_a_way_out():
    assert {rule.weight for rule in RULES.values()} == {"warning", "privacy", "note"}
    assert all(rule.expected and rule.fix.endswith(".") for rule in RULES.values())


def test_the_real_photos_are_whole(pad_ufes):
    paths = sorted(Path(pad_ufes).rglob("*.jpg"))[::25]
    assert len(paths) > 30
    assert not any("maybe cut" in findings(path.read_bytes(), path.name) for path in paths)
