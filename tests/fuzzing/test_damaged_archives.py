"""Zip archives with damaged bytes, and with entries whose names and kinds somebody chose."""

import shutil
import stat
import zipfile
from io import BytesIO

import pytest
from damage import damaged, explore, outcome, sizes
from hypothesis import strategies as st

from hcoatnet.data.sources.archive import Limits, unpack_zip
from hcoatnet.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")
LIMITS = Limits(bytes=100_000, files=100)
SIGNATURES = [
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"\xff" * 4,
    b"\0" * 4,
    b"\x08\0",
    b"\x0e\0",
    b"\x5f\0",
    b"/",
    b"..",
    b"\0",
]


def zipped(entries, method=zipfile.ZIP_DEFLATED):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, mode, content in entries:
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr, entry.compress_type = 3, mode << 16, method
            archive.writestr(entry, content)
    return buffer.getvalue()


def whole_archives():
    entries = [
        ("train/red/1.jpg", stat.S_IFREG | 0o644, b"one" * 50),
        ("train/", 0, b""),
        ("ä/2.jpg", 0, bytes(range(256))),
    ]
    return [
        zipped(entries, method)
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    ]


def unpacked(content, tmp_path):
    """What becomes of the archive; nothing may be written outside the folder, nor more than the limits let in."""
    archive, folder = tmp_path / "export.zip", tmp_path / "out"
    archive.write_bytes(content)
    folder.mkdir()
    try:
        found = outcome(lambda: unpack_zip(archive, folder, LIMITS), archive.name, folder.parent)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["export.zip", "out"]
        inside = [path for path in folder.rglob("*") if not path.is_dir()]
        assert all(path.is_file() and not path.is_symlink() for path in inside)
        assert sum(path.stat().st_size for path in inside) <= LIMITS.bytes
        if not isinstance(found, DataError):
            assert len(inside) == found
        return found
    finally:
        shutil.rmtree(folder)


def test_whole_archives_are_unpacked(tmp_path):
    assert [unpacked(content, tmp_path) for content in whole_archives()] == [2] * 4


@sizes(few=60, many=4000)
def test_an_archive_with_wrong_bytes_is_unpacked_or_refused(examples, tmp_path):
    explore(examples, lambda content: unpacked(content, tmp_path), damaged(whole_archives(), SIGNATURES))


PARTS = st.sampled_from(
    ["..", ".", "", "a", "A", "b", "con", "a\\b", "C:", "~", "ä", "a" * 300, "\0", "\n", "\x1b", "\u202e", " "]
)
NAMES = st.one_of(st.lists(PARTS, min_size=1, max_size=4).map("/".join), st.text(min_size=1, max_size=6))
KINDS = st.sampled_from(
    [0, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFBLK, 0o7777]
)
ENTRIES = st.lists(st.tuples(NAMES, KINDS, st.binary(max_size=20)), max_size=5)


@sizes(few=60, many=4000)
def test_an_archive_of_any_names_stays_in_its_folder(examples, tmp_path):
    def holds(entries):
        try:
            content = zipped(entries)
        except (ValueError, UnicodeError):  # a name that no archive can hold
            return
        unpacked(content, tmp_path)

    explore(examples, holds, ENTRIES)


def test_two_spellings_of_one_place_are_refused(tmp_path):
    for names in (("a/b", "a//b"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"), ("A", "a/b")):
        found = unpacked(zipped([(name, 0, b"x") for name in names]), tmp_path)
        assert isinstance(found, DataError), names
        assert "twice" in str(found) or "a file and a folder" in str(found)
