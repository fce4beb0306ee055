import os
import re
import subprocess
import sys
from dataclasses import asdict, fields
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hcoatnet.data.images import open_photo
from hcoatnet.data.manifest import MANIFEST_COLUMNS, read_manifest
from hcoatnet.data.sources.folder import scan_folder
from hcoatnet.data.synthetic import CLASS_SHARES, FEWEST_PATIENTS, draw_synthetic
from hcoatnet.data.synthetic_skin import TEXTURES, TextureRanges, draw_skin, photograph
from hcoatnet.errors import ConfigError, DataError
from hcoatnet.files import sha256_of_file

SMALL = {"patients": 12, "photos_per_patient": 2, "size": 32}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_synthetic(tmp_path_factory.mktemp("synthetic") / "set", size=64, seed=3)


def pixels(manifest, path):
    return np.asarray(open_photo(manifest.folder / path), dtype=float) / 255


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_same_seed_draws_the_same_bytes(tmp_path):
    first = draw_synthetic(tmp_path / "a", **SMALL, seed=1)
    second = draw_synthetic(tmp_path / "b", **SMALL, seed=1)
    other = draw_synthetic(tmp_path / "c", **SMALL, seed=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert first.sha256 == second.sha256 != other.sha256
    assert not set(first.table["sha256"]) & set(other.table["sha256"])


def test_the_number_of_threads_changes_nothing(tmp_path):
    draw_synthetic(tmp_path / "here", **SMALL)
    script = "import sys, pathlib; from hcoatnet.data.synthetic import draw_synthetic; "
    script += f"draw_synthetic(pathlib.Path(sys.argv[1]), **{SMALL!r})"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "4")
    subprocess.run([sys.executable, "-c", script, tmp_path / "there"], check=True, env={**os.environ, **threads})
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_a_photo_depends_on_the_seed_its_patient_and_its_number_only(tmp_path):
    manifest = draw_synthetic(tmp_path / "set", **SMALL, seed=5)
    row = manifest.table.iloc[-1]
    patient, take = (int(number) for number in re.fullmatch(r".*_p(\d+)_(\d)\.jpg", row["path"]).groups())
    skin = draw_skin(row["label"], np.random.default_rng([5, patient]))
    photograph(skin, SMALL["size"], np.random.default_rng([5, patient, take])).save(
        tmp_path / "again.jpg", quality=92, subsampling=0
    )
    assert sha256_of_file(tmp_path / "again.jpg") == row["sha256"]


def test_manifest_says_what_lies_there(drawn):
    table = drawn.table
    assert list(table.columns) == [*MANIFEST_COLUMNS, "patient_id", "source"]
    assert drawn.classes == tuple(sorted(CLASS_SHARES))
    assert all(label.startswith("synthetic ") for label in drawn.classes)
    assert (table["group"] == table["patient_id"]).all()
    assert (table["source"] == "synthetic").all()
    assert table["sha256"].is_unique
    assert (table[["width", "height"]] == 64).all(axis=None)
    for row in table.itertuples():
        assert row.path.startswith(f"{row.label}/{row.group}_")
        assert sha256_of_file(drawn.folder / row.path) == row.sha256
        assert open_photo(drawn.folder / row.path).size == (64, 64)
    photos = {path.relative_to(drawn.folder).as_posix() for path in drawn.folder.rglob("*.jpg")}
    assert photos == set(table["path"])
    assert read_manifest(drawn.folder / "manifest.csv").table.equals(table)


def test_the_folder_can_be_scanned_like_any_other(drawn):
    scanned = scan_folder(drawn.folder).manifest.table.set_index("path")
    assert scanned["label"].to_dict() == drawn.table.set_index("path")["label"].to_dict()


def test_the_folder_says_that_it_is_synthetic(drawn):
    text = (drawn.folder / "README.txt").read_text(encoding="utf-8")
    assert text.startswith("SYNTHETIC")
    assert f"{len(drawn)} drawings of 64 x 64 pixels" in text
    assert "seed 3" in text
    assert str(drawn.folder.parent) not in text


def test_class_shares_of_the_patients_are_those_of_the_published_test_set(drawn):
    patients = drawn.table.drop_duplicates("group")
    counts = patients["label"].value_counts()
    assert sum(CLASS_SHARES.values()) == 158
    assert len(patients) == 120
    # Largest remainders of 120 × (32, 45, 22, 13, 46) / 158, by hand: 24.30, 34.18, 16.71, 9.87, 34.94.
    assert counts.to_dict() == {
        "synthetic harlequin": 24,
        "synthetic healthy": 34,
        "synthetic lamellar": 17,
        "synthetic netherton": 10,
        "synthetic vulgaris": 35,
    }


@pytest.mark.parametrize("patients", [FEWEST_PATIENTS, 20, 37])
def test_every_class_has_a_patient_and_none_is_a_whole_patient_off(tmp_path, patients):
    manifest = draw_synthetic(tmp_path / "set", patients=patients, photos_per_patient=1, size=32)
    counts = manifest.table["label"].value_counts()
    assert counts.sum() == patients
    for label, share in CLASS_SHARES.items():
        assert counts[label] >= 1
        assert abs(counts[label] - Fraction(share * patients, 158)) < 1


def test_every_patient_has_one_class_and_one_to_five_photos(drawn):
    patients = drawn.table.groupby("group")
    assert (patients["label"].nunique() == 1).all()
    assert set(patients.size()) == {1, 2, 3, 4, 5}
    assert patients.size().mean() == 3


def test_photos_of_a_patient_differ_but_share_the_skin(drawn):
    """In mean colour alone, a photo is nearer to those of its patient than to others of its class: a leak."""
    colours = {row.path: pixels(drawn, row.path).mean(axis=(0, 1)) for row in drawn.table.itertuples()}
    same, other = [], []
    for (_, one), (_, two) in combinations(drawn.table[:200].iterrows(), 2):
        apart = np.abs(colours[one["path"]] - colours[two["path"]]).mean()
        assert apart > 0
        if one["label"] == two["label"]:
            (same if one["group"] == two["group"] else other).append(apart)
    assert len(same) > 50
    assert np.median(same) < 0.6 * np.median(other)


def test_every_range_of_a_class_overlaps_one_of_another_class():
    assert set(TEXTURES) == set(CLASS_SHARES)
    for label, ranges in TEXTURES.items():
        for name, (low, high) in asdict(ranges).items():
            assert low < high
            others = [getattr(other, name) for key, other in TEXTURES.items() if key != label]
            assert any(low < other_high and other_low < high for other_low, other_high in others), (label, name)
    assert len(fields(TextureRanges)) == 12


@pytest.mark.parametrize("existing", ["a photo", "a file"])
def test_a_folder_that_is_in_use_is_refused(tmp_path, existing):
    target = tmp_path / "set"
    if existing == "a photo":
        target.mkdir()
        (target / "mine.jpg").write_bytes(b"mine")
    else:
        target.write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"set is there already.*Name a new folder"):
        draw_synthetic(target, **SMALL)
    assert contents(tmp_path) == before


def test_an_empty_or_missing_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "not" / "yet"):
        manifest = draw_synthetic(folder, **SMALL)
        assert manifest.folder == folder
        assert (folder / "manifest.csv").is_file()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(tmp_path, stop):
    def interrupt(done, total):
        assert len(list(tmp_path.rglob("*.jpg"))) == done
        if done == 5:
            raise stop

    with pytest.raises((KeyboardInterrupt, OSError)):
        draw_synthetic(tmp_path / "set", **SMALL, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_photo(tmp_path):
    calls = []
    manifest = draw_synthetic(tmp_path / "set", **SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, len(manifest)) for done in range(1, len(manifest) + 1)]


@pytest.mark.parametrize(
    ("setting", "least"), [("patients", FEWEST_PATIENTS), ("photos_per_patient", 1), ("size", 32), ("seed", 0)]
)
def test_a_number_out_of_range_is_refused(tmp_path, setting, least):
    with pytest.raises(ConfigError, match=rf"'{setting}' .* at least {least}\. Got {least - 1}\."):
        draw_synthetic(tmp_path / "set", **{**SMALL, setting: least - 1})
    assert list(tmp_path.iterdir()) == []


def probe(manifest, features):
    """Balanced accuracy of a logistic regression, grouped 5-fold; chance is 0.2."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    labels, groups = manifest.table["label"], manifest.table["group"]
    return balanced_accuracy_score(labels, cross_val_predict(model, features, labels, groups=groups, cv=folds))


def contrasts(photo):
    """How much grey and redness change over 1, 2, 4 and 8 pixels: no colour, only texture."""
    maps = photo.mean(axis=-1), photo[..., 0] - photo[..., 1]
    return [np.log(np.abs(one[:, step:] - one[:, :-step]).mean()) for one in maps for step in (1, 2, 4, 8)]


def test_texture_tells_the_class_and_mean_colour_does_not(drawn):
    photos = [pixels(drawn, path) for path in drawn.table["path"]]
    colour = probe(drawn, np.array([photo.mean(axis=(0, 1)) for photo in photos]))
    texture = probe(drawn, np.array([contrasts(photo) for photo in photos]))
    assert colour < 0.4
    assert texture > max(0.5, colour + 0.15)
    assert texture < 0.95
