import multiprocessing

import numpy as np
import pytest

from hcoatnet.data.audit.cache import Cache
from hcoatnet.files import sha256_of_bytes


def key(number):
    return sha256_of_bytes(str(number).encode())


def rows(numbers):
    return {
        key(number): {"value": np.full((2, 3), number), "name": np.array(f"no {number}".encode())} for number in numbers
    }


def stored(cache, numbers, kind="kind"):
    found = cache.load(kind, [key(number) for number in numbers])
    return {number: found[key(number)] for number in numbers if key(number) in found}


def test_what_was_stored_is_loaded_by_kind_and_key(tmp_path):
    cache = Cache(tmp_path / "cache")
    assert stored(cache, range(5)) == {}
    cache.store("kind", rows(range(40)))
    cache.store("other", rows([99]))
    found = stored(Cache(tmp_path / "cache"), range(45))
    assert sorted(found) == list(range(40))
    for number, row in found.items():
        np.testing.assert_array_equal(row["value"], np.full((2, 3), number))
        assert row["name"].item() == f"no {number}".encode()
    assert stored(cache, [99]) == {}


def test_a_row_stored_again_replaces_the_first(tmp_path):
    cache = Cache(tmp_path)
    cache.store("kind", rows(range(8)))
    cache.store("kind", {key(3): {"value": np.zeros((2, 3), int), "name": np.array(b"new")}})
    assert stored(cache, [3])[3]["name"].item() == b"new"
    assert len(stored(cache, range(8))) == 8


def test_the_oldest_rows_make_room(tmp_path):
    cache = Cache(tmp_path, limit_bytes=16 * 10 * 311)
    for number in range(0, 2000, 100):
        cache.store("kind", rows(range(number, number + 100)))
    found = stored(cache, range(2000))
    assert 100 <= len(found) <= 16 * 11
    assert min(found) > 1500


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "empty", "other content"])
def test_a_damaged_file_is_taken_for_empty_and_written_anew(tmp_path, damage):
    cache = Cache(tmp_path)
    cache.store("kind", rows([1]))
    (path,) = tmp_path.glob("*.npz")
    content = bytearray(path.read_bytes())
    if damage == "flipped bit":
        content[content.index(b"no 1")] ^= 1
    path.write_bytes({"cut": content[:-30], "empty": b"", "other content": b"text"}.get(damage, bytes(content)))
    assert stored(cache, [1]) == {}
    cache.store("kind", rows([1]))
    assert list(stored(cache, [1])) == [1]


def test_a_python_object_in_a_file_is_never_loaded(tmp_path):
    cache = Cache(tmp_path)
    cache.store("kind", rows([1]))
    (path,) = tmp_path.glob("*.npz")
    with path.open("wb") as stream:
        np.savez(stream, keys=np.array([key(1)]), value=np.array([print], dtype=object))
    assert stored(cache, [1]) == {}


def _store(folder, numbers):
    for number in numbers:
        Cache(folder).store("kind", rows([number]))


def test_several_processes_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    parts = [range(start, start + 12) for start in (0, 12)]
    processes = [context.Process(target=_store, args=(tmp_path, part)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(stored(Cache(tmp_path), range(24))) == 24
