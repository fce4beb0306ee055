"""The cache of decoded photos: the same pixels, once decoded, whatever happens to the files and beside whom."""

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from hcoatnet.data import pixels as pixels_module
from hcoatnet.data.cache import CACHE_NAME, RECORD, PhotoCache, PixelSet, cache_folder
from hcoatnet.data.images import PhotoError, open_photo, resize_photo
from hcoatnet.data.pixels import HeldPhotos, Holding, PhotoFiles, hold
from hcoatnet.files import sha256_of_file

SHORTER, SQUARE = Holding.for_training(16), Holding.for_evaluation(16)


class Listener:
    def __init__(self):
        self.lines = []
        self.steps_done = 0

    def say(self, line):
        self.lines.append(line)

    @contextmanager
    def steps(self, description, total):
        yield self

    def advance(self):
        self.steps_done += 1


@pytest.fixture
def photos(tmp_path):
    """Nine photos of several shapes and formats, and their sizes."""
    rng = np.random.default_rng(0)
    paths, sizes = [], []
    for number in range(9):
        size = (30 + 7 * number, 50 - 2 * number)
        path = tmp_path / "photos" / f"{number}.{'jpg' if number % 2 else 'png'}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        paths.append(path)
        sizes.append(size)
    return PhotoFiles(paths, [sha256_of_file(path) for path in paths]), np.array(sizes)


@pytest.fixture
def decoded(monkeypatch):
    """Names of the photos that were decoded."""
    seen = []

    def spy(source, name=None):
        seen.append(name or str(source))
        return open_photo(source, name)

    monkeypatch.setattr(pixels_module, "open_photo", spy)
    return seen


def cache_in(folder, limit=1e9):
    return PhotoCache(folder, limit, Listener(), threads=2)


def everything(held):
    return [held[index] for index in range(len(held))]


def only_set(folder, start="shorter"):
    (found,) = (path for path in folder.iterdir() if path.is_dir() and path.name.startswith(start))
    return found


@pytest.mark.parametrize("holding", [SHORTER, SQUARE])
def test_cached_pixels_are_the_decoded_ones(photos, tmp_path, holding, decoded):
    files, sizes = photos
    plain = everything(HeldPhotos(files, holding))
    cached = hold(files, holding, cache_in(tmp_path / "cache"), sizes)
    decoded.clear()
    for _ in range(2):
        assert all(np.array_equal(one, other) for one, other in zip(everything(cached), plain, strict=True))
    assert decoded == []
    for one, (width, height) in zip(plain, sizes, strict=True):
        assert one.shape[:2] == holding.size(width, height)[::-1]


def test_pixels_for_evaluation_are_those_of_the_contract(photos):
    files, _ = photos
    for path, pixels in zip(files.paths, everything(HeldPhotos(files, SQUARE)), strict=True):
        assert np.array_equal(pixels, resize_photo(open_photo(path), 16))


def test_pixels_for_training_keep_the_aspect(photos):
    files, sizes = photos
    for pixels, (width, height) in zip(everything(HeldPhotos(files, SHORTER)), sizes, strict=True):
        assert min(pixels.shape[:2]) == 19  # ceil(1.15 * 16)
        assert pixels.shape[1] / pixels.shape[0] == pytest.approx(width / height, rel=0.05)


def test_what_is_cached_is_not_decoded_again_even_in_another_run_with_other_photos(photos, tmp_path, decoded):
    files, sizes = photos
    hold(PhotoFiles(files.paths[:6], files.sha256[:6]), SHORTER, cache_in(tmp_path / "cache"), sizes[:6])
    assert len(decoded) == 6
    cache = cache_in(tmp_path / "cache")
    hold(files, SHORTER, cache, sizes)
    assert sorted(decoded[6:]) == [str(path) for path in files.paths[6:]]
    assert cache.listener.steps_done == 3
    assert cache.listener.lines[0].startswith("Decoded 3 photos")
    again = cache_in(tmp_path / "cache")
    hold(files, SHORTER, again, sizes)
    assert (len(decoded), again.listener.lines) == (9, [])


def test_equal_photos_are_kept_once(photos, tmp_path):
    files, sizes = photos
    twice = PhotoFiles([*files.paths, *files.paths], [*files.sha256, *files.sha256])
    held = hold(twice, SQUARE, cache_in(tmp_path / "cache"), np.concatenate([sizes, sizes]))
    assert (only_set(tmp_path / "cache", "square") / "pixels").stat().st_size == 9 * 16 * 16 * 3
    assert np.array_equal(held[0], held[9])


def damage_index(folder):
    content = bytearray((folder / "index").read_bytes())
    content[RECORD.itemsize + 3] ^= 1
    (folder / "index").write_bytes(bytes(content))


def cut_index(folder):
    os.truncate(folder / "index", 5 * RECORD.itemsize + 11)


def cut_pixels(folder):
    os.truncate(folder / "pixels", (folder / "pixels").stat().st_size - 10)


def damage_pixels(folder):
    with (folder / "pixels").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"damaged")


def other_format(folder):
    (folder / "index").write_bytes(b"another format " * 40)


def empty_index(folder):
    (folder / "index").write_bytes(b"")


def no_pixels(folder):
    (folder / "pixels").unlink()


def no_index(folder):
    (folder / "index").unlink()


@pytest.mark.parametrize(
    "harm",
    [damage_index, cut_index, cut_pixels, damage_pixels, other_format, empty_index, no_pixels, no_index, shutil.rmtree],
)
def test_a_damaged_cache_is_mended(photos, tmp_path, harm, decoded):
    files, sizes = photos
    plain = everything(HeldPhotos(files, SHORTER))
    hold(files, SHORTER, cache_in(tmp_path / "cache"), sizes)
    harm(only_set(tmp_path / "cache"))
    decoded.clear()
    held = hold(files, SHORTER, cache_in(tmp_path / "cache"), sizes)
    for _ in range(2):
        assert all(np.array_equal(one, other) for one, other in zip(everything(held), plain, strict=True))
    assert len(decoded) > 0
    decoded.clear()
    mended = hold(files, SHORTER, cache_in(tmp_path / "cache"), sizes)
    assert all(np.array_equal(one, other) for one, other in zip(everything(mended), plain, strict=True))
    assert decoded == []


def test_a_cache_that_vanishes_is_done_without(photos, tmp_path):
    import pickle

    files, sizes = photos
    plain = everything(HeldPhotos(files, SHORTER))
    held = hold(files, SHORTER, cache_in(tmp_path / "cache"), sizes)
    shutil.rmtree(tmp_path / "cache")
    elsewhere = pickle.loads(pickle.dumps(held))
    assert all(np.array_equal(one, other) for one, other in zip(everything(elsewhere), plain, strict=True))


def test_another_decoder_has_a_cache_of_its_own(photos, tmp_path, decoded, monkeypatch):
    files, sizes = photos
    hold(files, SHORTER, cache_in(tmp_path / "cache"), sizes)
    monkeypatch.setattr("PIL.__version__", "99.0")
    hold(files, SHORTER, cache_in(tmp_path / "cache"), sizes)
    assert len(decoded) == 18


def test_a_photo_that_has_changed_since_the_manifest_is_named(photos, tmp_path):
    files, sizes = photos
    Image.new("RGB", (30, 50)).save(files.paths[4])
    for held in (
        lambda: hold(files, SQUARE, cache_in(tmp_path / "cache"), sizes),
        lambda: HeldPhotos(files, SQUARE)[4],
    ):
        with pytest.raises(PhotoError, match=r"4\.png: changed since the manifest was made"):
            held()


def test_the_oldest_sets_leave(photos, tmp_path):
    files, sizes = photos
    folder = tmp_path / "cache"
    for age, size in enumerate((16, 24, 32)):
        hold(files, Holding.for_evaluation(size), cache_in(folder), sizes)
        os.utime(only_set(folder, f"square-{size}"), (1000 + age, 1000 + age))
    hold(files, Holding.for_evaluation(16), cache_in(folder), sizes)  # used again: no longer the oldest
    need = 9 * 3 * 40 * 40
    limit = need + 9 * 3 * (16 * 16 + 32 * 32) + 4096
    cache = cache_in(folder, limit)
    hold(files, Holding.for_evaluation(40), cache, sizes)
    assert sorted(path.name.split("-")[1] for path in folder.iterdir() if path.is_dir()) == ["16", "32", "40"]


def test_a_run_never_removes_what_it_uses(photos, tmp_path):
    files, sizes = photos
    cache = cache_in(tmp_path / "cache", 9 * 3 * 16 * 16 + 4096)
    first = hold(files, SQUARE, cache, sizes)
    second = hold(files, SHORTER, cache, sizes)
    assert first.cached is not None
    assert second.cached is None
    assert "--cache-limit" in cache.listener.lines[-1]
    assert np.array_equal(second[3], HeldPhotos(files, SHORTER)[3])
    assert only_set(tmp_path / "cache", "square").exists()


def test_a_full_disk_is_said_and_done_without(photos, tmp_path, monkeypatch):
    files, sizes = photos

    def full(self, photos, again=False):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PixelSet, "append", full)
    cache = cache_in(tmp_path / "cache")
    held = hold(files, SHORTER, cache, sizes)
    assert held.cached is None
    assert "No space left on device" in cache.listener.lines[-1]
    assert np.array_equal(held[0], HeldPhotos(files, SHORTER)[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes everywhere")
def test_a_folder_that_cannot_be_written_is_done_without(photos, tmp_path):
    files, sizes = photos
    (tmp_path / "cache").mkdir(mode=0o500)
    cache = cache_in(tmp_path / "cache")
    assert hold(files, SHORTER, cache, sizes).cached is None
    assert "cannot be used" in cache.listener.lines[-1]


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    manifest = tmp_path / "data" / "manifest.csv"
    manifest.write_text("")
    assert cache_folder(tmp_path / "data") == cache_folder(manifest) == tmp_path / "data" / CACHE_NAME
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert cache_folder(manifest) == tmp_path / "home" / "hcoatnet"


def test_the_folder_is_marked(photos, tmp_path):
    files, sizes = photos
    hold(files, SQUARE, cache_in(tmp_path / "home" / "hcoatnet"), sizes)
    folder = tmp_path / "home" / "hcoatnet"
    assert (folder / ".gitignore").read_text() == "*\n"
    assert (folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert folder.stat().st_mode & 0o077 == 0  # photos of patients, outside the folder that protects them


FILL = """
import json, sys
from pathlib import Path
from hcoatnet.data.cache import PhotoCache
from hcoatnet.data.pixels import Holding, PhotoFiles, hold
import hcoatnet.data.cache, numpy as np
hcoatnet.data.cache.CHUNK = 2
class Listener:
    def say(self, line): pass
    def steps(self, *_):
        from contextlib import nullcontext
        return nullcontext(self)
    def advance(self): pass
paths, sha256, sizes, folder = json.load(sys.stdin)
files = PhotoFiles([Path(path) for path in paths], sha256)
held = hold(files, Holding.for_training(16), PhotoCache(Path(folder), 1e9, Listener()), np.array(sizes))
assert held.cached is not None and (held.places["size"] > 0).all()
print(sum(int(held[index].sum()) for index in range(len(held))))
"""


def test_processes_that_build_it_at_once_build_one(photos, tmp_path):
    files, sizes = photos
    given = json.dumps([[str(path) for path in files.paths], files.sha256, sizes.tolist(), str(tmp_path / "cache")])
    command = [sys.executable, "-c", FILL]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        process.stdin.write(given)
        process.stdin.close()
    printed = [process.stdout.read() for process in running]
    assert [process.wait() for process in running] == [0, 0, 0]
    total = sum(int(pixels.sum()) for pixels in everything(HeldPhotos(files, SHORTER)))
    assert {int(text) for text in printed} == {total}
    records = np.fromfile(only_set(tmp_path / "cache") / "index", RECORD)
    assert len(records) == len({record["sha256"].tobytes() for record in records}) == 9


MANY = """
import resource, sys, time
from pathlib import Path
import numpy as np
from hcoatnet.data.cache import PixelSet
folder, count = Path(sys.argv[1]), int(sys.argv[2])
digests = [f"{number:064x}" for number in range(count)]
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024
before, started = resident(), time.perf_counter()
chosen = PixelSet(folder)
places = chosen.find(digests)
chosen.forget()
seconds = time.perf_counter() - started
assert (places["size"] > 0).all()
for number in range(0, count, 7):
    assert chosen.read(places[number])[0, 0, 0] == number % 251
print(seconds, resident() - before, places.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_hundred_thousand_photos_take_little_memory_and_time(tmp_path):
    count = 100_000
    chosen = PixelSet(tmp_path / "set")
    for start in range(0, count, 5000):
        numbers = range(start, start + 5000)
        chosen.append([(f"{number:064x}", np.full((4, 5, 3), number % 251, np.uint8)) for number in numbers])
    done = subprocess.run(
        [sys.executable, "-c", MANY, tmp_path / "set", str(count)], capture_output=True, text=True, check=True
    )
    seconds, grown, index = (float(word) for word in done.stdout.split())
    assert seconds < 20  # it takes well below a second on an idle core
    assert index == 24 * count
    assert grown < 80e6


def test_photos_of_a_manifest_only_are_cached(photos, tmp_path):
    files, sizes = photos
    assert hold(PhotoFiles(files.paths), SQUARE, cache_in(tmp_path / "cache"), sizes).cached is None
    assert not (tmp_path / "cache").exists()


def test_bytes_and_file_are_opened_alike(photos):
    files, _ = photos
    expected = np.asarray(open_photo(io.BytesIO(files.paths[2].read_bytes()).getvalue()))
    assert np.array_equal(np.asarray(files.open(2)), expected)


def test_nothing_is_removed_for_photos_that_would_not_fit_even_so(photos, tmp_path):
    files, sizes = photos
    hold(files, Holding.for_evaluation(16), cache_in(tmp_path / "cache"), sizes)
    cache = cache_in(tmp_path / "cache", 9 * 3 * 20 * 20)
    assert hold(files, Holding.for_evaluation(24), cache, sizes).cached is None
    assert only_set(tmp_path / "cache", "square-16").exists()


def test_a_photo_that_cannot_be_read_is_named_not_the_cache(photos, tmp_path):
    files, sizes = photos
    files.paths[3].unlink()
    files.paths[3].mkdir()
    with pytest.raises(PhotoError, match=r"3\.jpg"):
        hold(files, SQUARE, cache_in(tmp_path / "cache"), sizes)
