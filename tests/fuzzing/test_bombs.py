"""Small files that stand for much: refused in little time and memory."""

import json
import shutil
import struct
import zipfile
import zlib
from io import BytesIO

import numpy as np
import pytest
from damage import MEBIBYTES, outcome
from PIL import Image

from hcoatnet.config import read_settings
from hcoatnet.data.images import MOST_SCANS, PIXEL_LIMIT, PhotoError, describe_photo, open_photo
from hcoatnet.data.manifest import MANIFEST_COLUMNS, read_manifest
from hcoatnet.data.sources.archive import Limits, unpack_zip
from hcoatnet.data.tables import read_table
from hcoatnet.deploy import bundle as layout
from hcoatnet.deploy.bundle import Bundle
from hcoatnet.errors import BundleError, ConfigError, DataError, PredictionsError, RunError
from hcoatnet.evaluation.predictions import read_predictions
from hcoatnet.study.definition import read_study
from hcoatnet.training.run_directory import RunDirectory


def jpeg_of_scans(scans):
    """A progressive JPEG whose last pass is said to be made again and again, in ten bytes each."""
    buffer = BytesIO()
    Image.new("RGB", (2000, 2000), (9, 99, 200)).save(buffer, "JPEG", progressive=True)
    return buffer.getvalue()[:-2] + bytes.fromhex("ffda0008010100013f10") * scans + b"\xff\xd9"


def png_of(width, height, depth=8, colour=0, rows=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_one_tile(side):
    """A TIFF of 16 × 16 pixels in one tile that is much larger."""
    tags = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1), (322, 4, 1, side),
            (323, 4, 1, side), (324, 4, 1, 8), (325, 4, 1, 20)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *one) for one in tags)
    data = zlib.compress(bytes(100))[:20].ljust(20, b"\0")
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def bmp_of_runs(width, height, runs):
    palette = bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


def gif_of(width, height):
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame


PHOTOS = {
    "jpeg of scans": jpeg_of_scans(200_000),
    "png of 2 to the 31": png_of(2**31 - 1, 2**31 - 1),
    "png of one row": png_of(PIXEL_LIMIT, 1),
    "png that is too deep": png_of(30_000, 30_000, 16, 6),
    "tiff of one tile": tiff_of_one_tile(30_000),
    "bmp of one row": bmp_of_runs(PIXEL_LIMIT, 1, b"\1\0\0\0"),
    "bmp of jumps": bmp_of_runs(PIXEL_LIMIT, 1, b"\0\2\0\xff" * 1000),
    "gif with a frame beyond it": gif_of(60_000, 60_000),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_photos(name, tmp_path):
    path = tmp_path / "bomb.jpg"
    path.write_bytes(PHOTOS[name])
    found = outcome(lambda: describe_photo(path), path.name, mebibytes=50)
    assert isinstance(found, PhotoError)
    assert found.problem.rule == ("too many scans" if "scans" in name else "too many pixels")


def test_as_many_scans_as_a_photo_may_have_and_what_stands_after_its_end(tmp_path):
    assert open_photo(jpeg_of_scans(MOST_SCANS // 2)).size == (2000, 2000)
    video = np.random.default_rng(0).bytes(5_000_000)
    assert video.count(b"\xff\xda") > MOST_SCANS
    assert open_photo(jpeg_of_scans(0) + video).size == (2000, 2000)  # as phones keep them


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "colour", "samples"), [(8, 2, 3), (8, 6, 4), (16, 0, 2), (16, 6, 8), (8, 4, 2)])
def test_the_largest_photos_that_are_opened(depth, colour, samples):
    """The promise of the page on reliability: less than 2 GiB for 100 million pixels."""
    content = png_of(10_000, 10_000, depth, colour, (b"\0" + bytes(10_000 * samples)) * 10_000)
    assert outcome(lambda: open_photo(content), "photo", mebibytes=2048).size == (10_000, 10_000)


def test_sixteen_bits_are_scaled_in_little_memory():
    grey = np.arange(9_000_000, dtype=np.uint32).reshape(3000, 3000).astype(np.uint16)
    buffer = BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    photo = outcome(lambda: open_photo(buffer.getvalue()), "photo", mebibytes=120)
    assert np.array_equal(np.asarray(photo)[..., 0], np.rint(grey / 257).astype(np.uint8))


MANY = 100_000
TABLES = {
    "columns": (",".join(f"c{number}" for number in range(MANY)), read_table, object),
    "columns without names": ("," * MANY, read_table, object),
    "columns of a manifest": (",".join([*MANIFEST_COLUMNS, *(f"c{number}" for number in range(MANY))]), read_manifest, DataError),
    "one column": ("x" * 10_000_000, read_table, DataError),
    "a quote without an end": ('path,label\n"' + "x,\n" * 1_000_000, read_table, DataError),
    "wrong rows": ("path,label\n" + "x\n" * MANY, read_table, DataError),
    "wrong values": (",".join(MANIFEST_COLUMNS) + "\n" + "x,y,z,1,0,-\n" * MANY, read_manifest, DataError),
    "columns of predictions": (
        "path,group,label,subset" + "".join(f",logit_{number},p_{number}" for number in range(MANY)), read_predictions,
        PredictionsError,
    ),
}  # fmt: skip


QUICK = ("columns without names", "one column", "a quote without an end", "wrong rows")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TABLES]
)
def test_tables(name, tmp_path):
    text, read, kind = TABLES[name]
    path = tmp_path / "bomb.csv"
    path.write_text(text + "\n", encoding="utf-8")
    assert isinstance(outcome(lambda: read(path), path.name, mebibytes=1000), kind)


def repeated(first, further, levels):
    """A line for each level, each of which repeats the one before ten times."""
    lines = [f"a0: &a0 {first}"]
    for level in range(1, levels):
        names = ",".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {further.format(names)}")
    return "\n".join([*lines, f"model: *a{levels - 1}"])


SETTINGS = {
    "lists": repeated("[x]", "[{}]", 12),
    "merged mappings": repeated("{k: 1}", "{{<<: [{}]}}", 12),
    "one that holds itself": "model: &a [*a]",
    "a mapping that holds itself": "&a lr: *a",
    "deep": "lr: " + "[" * 5_000,
    "deep mappings": "lr: " + "{a: " * 20_000,
    "long": "lr: [" + "1," * 2_000_000 + "]",
    "a long number": "epochs: " + "9" * 200_000,
    "a long hexadecimal number": "epochs: 0x" + "f" * 100_000,
    "a long text": "model: " + "x" * 200_000,
    "a number beyond any float": "lr: 1" + "0" * 400,
    "a number beyond any machine": "epochs: 1" + "0" * 30,
    "a date": "seed: 2001-99-99",
    "a zero byte": 'data: "a\\0b"',
    "a zero byte in weights": 'init: "pretrained:a\\0b"',
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name, tmp_path):
    path = tmp_path / "bomb.yaml"
    path.write_text(SETTINGS[name], encoding="utf-8")
    assert isinstance(outcome(lambda: read_settings(path), path.name, mebibytes=100), ConfigError)


def test_a_study_that_names_one_seed_again_and_again(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("models: [cnn]\nseeds: [" + "1," * 50_000 + "]", encoding="utf-8")
    found = outcome(lambda: read_study(path), path.name)
    assert isinstance(found, ConfigError)
    assert "names 1 twice" in str(found)


OBJECTS = {
    "deep": "[" * 1_000_000,
    "deep objects": '{"a": ' * 1_000_000,
    "a long number": '{"format": 1' + "0" * 10_000 + "}",
    "many names": json.dumps({"format": 1, "sha256": {f"name {number}": "x" for number in range(50_000)}}),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_json(name, tmp_path):
    run = RunDirectory(tmp_path)
    run.metrics_file.write_text(OBJECTS[name], encoding="utf-8")
    assert isinstance(outcome(run.results, run.metrics_file.name, mebibytes=100), RunError)
    (tmp_path / layout.HASHES).write_text(OBJECTS[name], encoding="utf-8")
    assert isinstance(outcome(lambda: Bundle.open(tmp_path), tmp_path.name, mebibytes=100), BundleError)


def test_archives(tmp_path):
    archive, folder = tmp_path / "bomb.zip", tmp_path / "out"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as opened:
        for number in range(10):
            opened.writestr(f"red/{number}.jpg", bytes(20_000_000))
    folder.mkdir()
    found = outcome(lambda: unpack_zip(archive, folder, Limits(bytes=100_000_000)), archive.name, folder)
    assert isinstance(found, DataError)
    assert list(folder.iterdir()) == []
    lying = bytearray(archive.read_bytes())
    place = lying.find(b"PK\x01\x02")
    while place >= 0:
        lying[place + 24 : place + 28] = (1).to_bytes(4, "little")
        place = lying.find(b"PK\x01\x02", place + 1)
    archive.write_bytes(lying)
    found = outcome(
        lambda: unpack_zip(archive, folder, Limits(bytes=10_000)), archive.name, folder, mebibytes=MEBIBYTES
    )
    assert isinstance(found, DataError)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 10_000
    shutil.rmtree(folder)
