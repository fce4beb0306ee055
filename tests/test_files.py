import json
import threading

import pytest

from hcoatnet.files import (
    append_line,
    read_json_lines,
    replace_file,
    replace_folder,
    sha256_of_bytes,
    sha256_of_file,
    write_json,
    write_text,
)


def test_sha256_of_a_known_text(tmp_path):
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256_of_bytes(b"abc") == expected
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "abc") == expected


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "metrics.json"
    write_text(path, "old")

    def fail(temporary):
        temporary.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        replace_file(path, fail)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "bundle"
    for text in ("one", "two"):
        replace_folder(path, lambda new, text=text: write_text(new / text, text))
        assert [one.name for one in path.iterdir()] == [text]
    assert [one.name for one in path.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_folder_leaves_the_old_one_and_no_other(tmp_path, error):
    path = tmp_path / "bundle"
    replace_folder(path, lambda new: write_text(new / "one", "one"))

    def fail(new):
        write_text(new / "two", "two")
        raise error

    with pytest.raises(type(error)):
        replace_folder(path, fail)
    assert [one.name for one in path.iterdir()] == ["one"]
    assert [one.name for one in tmp_path.iterdir()] == ["bundle"]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_torn_last_line_is_skipped_and_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "ledger.jsonl"
    append_line(path, json.dumps({"a": 1}))
    with path.open("a") as stream:
        stream.write('{"a": 2')
    append_line(path, json.dumps({"a": 3}))
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}]
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_lines_of_several_writers_do_not_mix(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text("")
    writers = [
        threading.Thread(
            target=lambda n=n: [append_line(path, json.dumps({"n": n, "k": k, "text": "x" * 500})) for k in range(50)]
        )
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted((row["n"], row["k"]) for row in read_json_lines(path)) == [
        (n, k) for n in range(4) for k in range(50)
    ]
