import warnings
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from hcoatnet.data.audit.containers import jpeg_parts
from hcoatnet.data.audit.strip import strip_metadata
from hcoatnet.data.images import open_photo
from hcoatnet.data.manifest import MANIFEST_COLUMNS, Manifest
from hcoatnet.data.sources.table import scan_table
from hcoatnet.errors import DataError

SECRET = b"Erika Mustermann"


def picture(seed=0, size=(90, 60)):
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def private_exif(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = SECRET.decode()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    return exif


def manifest_of(folder, paths):
    rows = [[path, "A", path, "0" * 64, 1, 1] for path in paths]
    return Manifest(pd.DataFrame(rows, columns=[*MANIFEST_COLUMNS]), folder)


def save(folder, name, image, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return name


def texts():
    made = PngImagePlugin.PngInfo()
    made.add_text("Author", SECRET.decode())
    return made


@pytest.fixture
def collection(tmp_path):
    """Photos of many formats and orientations, all with a name in their metadata."""
    source = tmp_path / "source"
    source.mkdir()
    names = []
    for orientation in range(1, 9):
        exif = private_exif(orientation)
        for suffix, options in (("jpg", {"comment": SECRET, "progressive": True}), ("png", {"pnginfo": texts()}), ("webp", {"lossless": True})):  # fmt: skip
            names.append(save(source, f"a/{orientation}.{suffix}", picture(orientation), exif=exif, **options))
        names.append(save(source, f"b/{orientation}.tif", picture(orientation), exif=exif))
    names.append(save(source, "b/cmyk.jpg", picture().convert("CMYK"), comment=SECRET))
    names.append(save(source, "b/profile.jpg", picture(), comment=SECRET, icc_profile=b"p" * 200))
    names.append(save(source, "b/palette.gif", picture().convert("P"), comment=SECRET))
    names.append(save(source, "b/deep.tif", Image.fromarray(np.arange(5000, dtype=np.uint16).reshape(50, 100)), description=SECRET.decode()))  # fmt: skip
    names.append(save(source, "b/clear.png", picture().convert("RGBA"), pnginfo=texts()))
    names.append(save(source, "b/plain.bmp", picture()))
    with (source / "a/1.jpg").open("ab") as stream:
        stream.write(SECRET)
    return source, sorted(names)


def test_copies_have_the_same_pixels_and_no_metadata(collection, tmp_path):
    source, names = collection
    before = {name: (source / name).read_bytes() for name in names}
    count, problems = strip_metadata(manifest_of(source, names), tmp_path / "clean")
    assert (count, problems) == (len(names), [])
    for name in names:
        copy = (tmp_path / "clean" / name).read_bytes()
        assert SECRET not in copy
        assert before[name] == (source / name).read_bytes()
        assert np.array_equal(np.asarray(open_photo(copy)), np.asarray(open_photo(before[name]))), name
        exif = Image.open(BytesIO(copy)).getexif()
        assert set(exif) - {ExifTags.Base.Orientation} == set() or name.endswith(".tif")
        assert not exif.get_ifd(ExifTags.IFD.GPSInfo)


def test_compressed_jpeg_data_are_the_same_bytes(collection, tmp_path):
    def scans(content):
        return [content[part.start : part.end] for part in jpeg_parts(content) if part.kind == 0xDA]

    source, names = collection
    strip_metadata(manifest_of(source, names), tmp_path / "clean")
    photos = [name for name in names if name.endswith(".jpg")]
    assert len(photos) == 10
    for name in photos:
        assert scans((source / name).read_bytes()) == scans((tmp_path / "clean" / name).read_bytes()) != []


def test_colour_profiles_stay(collection, tmp_path):
    source, names = collection
    strip_metadata(manifest_of(source, names), tmp_path / "clean")
    assert Image.open(tmp_path / "clean/b/profile.jpg").info["icc_profile"] == b"p" * 200


def test_the_table_beside_the_copies_can_be_scanned(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        save(tmp_path, f"photos/{number}.jpg", picture(number))
    rows = [[f"../photos/{number}.jpg", "AB"[number % 2], f"p{number // 2}", "x", 9, 9, "arm"] for number in range(4)]
    table = pd.DataFrame(rows, columns=[*MANIFEST_COLUMNS, "site"])
    strip_metadata(Manifest(table, tmp_path / "in"), tmp_path / "clean")
    result = scan_table(tmp_path / "clean/table.csv", group_column="group")
    assert list(result.manifest.table["path"]) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert list(result.manifest.table["group"]) == ["p0", "p0", "p1", "p1"]
    assert list(result.manifest.table["site"]) == ["arm"] * 4


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    save(tmp_path, "photos/0.jpg", picture())
    with pytest.raises(DataError, match="holds something"):
        strip_metadata(manifest_of(tmp_path, ["photos/0.jpg"]), tmp_path / "photos")


def test_a_photo_that_cannot_be_copied_is_reported_and_the_others_are_there(tmp_path):
    warnings.simplefilter("ignore")
    for number in range(3):
        save(tmp_path, f"{number}.jpg", picture(number))
    (tmp_path / "1.jpg").write_bytes(b"no photo")
    count, problems = strip_metadata(manifest_of(tmp_path, [f"{n}.jpg" for n in range(3)]), tmp_path / "clean")
    assert count == 2
    assert [problem.path for problem in problems] == ["1.jpg"]
    assert sorted(path.name for path in (tmp_path / "clean").iterdir()) == ["0.jpg", "2.jpg", "table.csv"]


def test_an_interrupt_leaves_nothing(tmp_path):
    save(tmp_path, "photos/0.jpg", picture())

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        strip_metadata(manifest_of(tmp_path / "photos", ["0.jpg"]), tmp_path / "clean", interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
