"""What training reads: decoded once, and the same with and without the cache, with and without loader processes."""

import shutil

import pytest

from conftest import TINY
from hcoatnet.config import resolve_config
from hcoatnet.data import pixels
from hcoatnet.data.cache import CACHE_NAME
from hcoatnet.errors import DataError
from hcoatnet.training.run import train

SETTINGS = {**TINY, "model": "cnn", "epochs": 3, "deterministic": True, "evaluate_test": False, "ema": 0.5}


@pytest.fixture
def own_photos(photos, manifest_file, tmp_path):
    """A copy of the photos and their manifest without a cache."""
    ignored = shutil.ignore_patterns(CACHE_NAME, "*.jsonl")
    shutil.copytree(photos, tmp_path / "photos", ignore=ignored)
    return tmp_path / "photos" / "manifest.csv"


@pytest.fixture
def opened(monkeypatch):
    """Names of the photos that were decoded."""
    seen = []

    def spy(source, name=None, plain=pixels.open_photo):
        seen.append(name or str(source))
        return plain(source, name)

    monkeypatch.setattr(pixels, "open_photo", spy)
    return seen


def trained(manifest, out, **settings):
    return train(resolve_config({**SETTINGS, "data": manifest, "out": out, **settings}))


def test_each_photo_is_decoded_once_and_the_weights_are_those_without_a_cache(own_photos, tmp_path, opened):
    cached = trained(own_photos, tmp_path / "cached")
    decoded = len(opened)
    assert decoded == len(set(opened))
    log = cached.log_file.read_text()
    assert "photos into the cache" in log
    assert str(tmp_path) not in log
    again = trained(own_photos, tmp_path / "again", seed=43)
    assert len(opened) == decoded
    assert "photos into the cache" not in again.log_file.read_text()
    plain = trained(own_photos, tmp_path / "plain", cache=False)
    training = (plain.split_file.read_text()).count(",train")
    validation = decoded - training
    epochs = SETTINGS["epochs"]
    assert len(opened) - decoded == epochs * (training + validation) + validation
    assert cached.weights_file.read_bytes() == plain.weights_file.read_bytes()
    assert cached.predictions_file("val").read_bytes() == plain.predictions_file("val").read_bytes()


def test_a_cache_elsewhere(own_photos, tmp_path):
    trained(own_photos, tmp_path / "run", epochs=1, cache_folder=tmp_path / "fast disk")
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "fast disk").iterdir() if path.is_dir()) == [
        "shorter",
        "square",
    ]
    assert not (own_photos.parent / CACHE_NAME).exists()


def test_a_photo_changed_since_the_manifest_ends_the_training_with_its_name(own_photos, tmp_path):
    victim = next(path for path in sorted(own_photos.parent.rglob("*.png")))
    other = sorted(own_photos.parent.rglob("*.png"))[-1]
    for cache in (True, False):
        content = victim.read_bytes()
        victim.write_bytes(other.read_bytes())
        with pytest.raises(DataError, match="changed since the manifest"):
            trained(own_photos, tmp_path / f"run{cache}", cache=cache, evaluate_test=True, epochs=1)
        assert not (tmp_path / f"run{cache}" / "metrics.json").exists()
        victim.write_bytes(content)


def test_a_folder_of_photos_is_read_the_same_beside_its_cache(own_photos, tmp_path):
    for name in ("manifest.csv", "table.csv"):
        (own_photos.parent / name).unlink()
    runs = [trained(own_photos.parent, tmp_path / name, epochs=1) for name in ("first", "second")]
    assert (own_photos.parent / CACHE_NAME).is_dir()
    assert runs[0].manifest_file.read_bytes() == runs[1].manifest_file.read_bytes()
    assert "Left out" not in runs[1].log_file.read_text()
