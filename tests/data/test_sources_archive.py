import stat
import zipfile

import pytest

from hcoatnet.data.sources.archive import Limits, unpack_zip
from hcoatnet.errors import DataError


def make_zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    """Entries are names, or ZipInfo, with their content."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def refused(tmp_path, entries, match, limits=None):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(DataError, match=match):
        unpack_zip(make_zip(tmp_path / "a.zip", entries), folder, limits)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "a.zip"]
    assert all(folder in path.parents for path in written)
    return written


def linked(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def test_files_and_folders_are_unpacked(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("train/a/1.txt", "one"), ("empty/", ""), ("2.txt", "two")])
    (tmp_path / "out").mkdir()
    seen = []
    assert unpack_zip(archive, tmp_path / "out", progress=lambda *counts: seen.append(counts)) == 2
    assert (tmp_path / "out/train/a/1.txt").read_text() == "one"
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "C:/evil.txt", "C:evil", "a\\..\\..\\evil", "a/.."])  # fmt: skip
def test_no_entry_leaves_the_folder(tmp_path, name):
    assert refused(tmp_path, [("good.txt", "x"), (name, "x")], "outside the folder") == []


@pytest.mark.parametrize("odd", ["\0", "\n", "\x1b"])
def test_names_of_unprintable_characters_are_refused_and_shown_escaped(tmp_path, odd):
    archive = make_zip(tmp_path / "a.zip", [("good.txt", "x"), ("aXb.txt", "x")])
    archive.write_bytes(archive.read_bytes().replace(b"aXb.txt", f"a{odd}b.txt".encode()))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="unprintable") as caught:
        unpack_zip(archive, tmp_path / "out")
    assert str(caught.value).isprintable()
    assert list((tmp_path / "out").iterdir()) == []


def test_links_and_devices_are_refused(tmp_path):
    assert refused(tmp_path, [(linked("link"), "/etc/passwd"), ("link/x", "y")], "is a link") == []


def test_the_same_name_twice_is_refused(tmp_path):
    assert refused(tmp_path, [("a/x.txt", "1"), ("A/X.txt", "2")], "twice") == []


def test_limits(tmp_path):
    assert refused(tmp_path, [("a", "12345"), ("b", "12345")], "10 bytes when unpacked", Limits(bytes=9)) == []


def test_the_number_of_files_is_limited(tmp_path):
    assert refused(tmp_path, [("a", "1"), ("b", "1")], "2 files", Limits(files=1)) == []


def test_an_archive_that_lies_about_its_size_is_stopped(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("bomb", b"\0" * 3_000_000)])
    content = bytearray(archive.read_bytes())
    for mark in (content.find(b"PK\x01\x02") + 24, content.find(b"PK\x03\x04") + 22):
        content[mark : mark + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError):
        unpack_zip(archive, tmp_path / "out", Limits(bytes=1000))
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 1000


@pytest.mark.parametrize("spoil", [lambda c: c[: len(c) // 2], lambda c: b"<html>not found</html>", lambda c: b"", lambda c: c[:60] + bytes([c[60] ^ 255]) + c[61:]])  # fmt: skip
def test_what_is_no_whole_archive_is_refused(tmp_path, spoil):
    archive = make_zip(tmp_path / "a.zip", [("a.bin", bytes(range(256)) * 20)])
    archive.write_bytes(spoil(archive.read_bytes()))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="not a whole zip"):
        unpack_zip(archive, tmp_path / "out")
