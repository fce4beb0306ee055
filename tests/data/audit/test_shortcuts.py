import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from hcoatnet.data.audit.integrity import Facts
from hcoatnet.data.audit.shortcuts import _interval, balanced_accuracy, probe_shortcuts, shown, source_columns
from hcoatnet.data.manifest import Manifest

N, CLASSES = 300, ("A", "B", "C")
LABELS = np.arange(N) // 2 % 3  # two photos a group


def manifest_of(**columns):
    table = pd.DataFrame({
        "path": [f"{number}.jpg" for number in range(N)], "label": [CLASSES[label] for label in LABELS],
        "group": [f"g{number // 2}" for number in range(N)], "sha256": "0" * 64, "width": 100, "height": 80,
    })  # fmt: skip
    return Manifest(table.assign(**columns), None)


def facts_of(width=lambda n: 100, quantisation=lambda n: 5.0):
    return [Facts(1, "JPEG", "RGB", width(n), 80, 1, quantisation(n), ()) for n in range(N)]


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (N, 64, 64, 3), dtype=np.uint8)


def probes(manifest=None, facts=None, thumbnails=None, sources=()):
    found, notes = probe_shortcuts(manifest or manifest_of(), facts or facts_of(), noise() if thumbnails is None else thumbnails, sources)  # fmt: skip
    return {probe.name: probe for probe in found}, notes


def test_balanced_accuracy_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for classes in (2, 3, 7):
        labels, predicted = rng.integers(0, classes, (2, 90))
        expected = balanced_accuracy_score(labels, predicted)
        assert balanced_accuracy(labels, predicted, classes) == pytest.approx(expected)


def test_noise_beats_nothing_and_what_never_varies_is_said():
    found, notes = probes()
    assert notes == ()
    assert {name for name, probe in found.items() if probe.balanced_accuracy is not None} == {"border", "mean colour"}
    assert not any(probe.beats_chance for probe in found.values())
    for probe in (found["border"], found["mean colour"]):
        assert probe.chance == pytest.approx(1 / 3)
        assert probe.low < probe.balanced_accuracy < probe.high
        assert probe.low < 1 / 3 < probe.high + 0.05
        assert probe.p > 0.01
    assert shown(found["image size"])["balanced accuracy"] == "the same for all photos"


def test_over_many_sets_of_noise_few_probes_beat_chance():
    beating = 0
    for seed in range(8):
        found, _ = probes(thumbnails=noise(seed))
        beating += sum(probe.beats_chance for probe in found.values())
    assert beating <= 1  # of 16, each at 5 % divided by the number of probes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("image size", {"facts": facts_of(width=lambda n: 100 + 40 * int(LABELS[n] == 1) + n % 7)}),
        ("original size", {"manifest": manifest_of(
            user_width=[str(800 + 300 * label) for label in LABELS], user_height="600")}),
        ("file format", {"facts": facts_of(quantisation=lambda n: 3.0 + 4 * int(LABELS[n] == 2))}),
        ("column hospital", {"manifest": manifest_of(hospital=[f"h{label}" for label in LABELS]), "sources": ["hospital"]}),
    ],
)  # fmt: skip
def test_a_planted_shortcut_is_found_and_nothing_else(name, options):
    found, _ = probes(**options)
    assert found[name].beats_chance
    assert found[name].low > 0.5
    assert found[name].p < 0.01
    assert [other for other, probe in found.items() if probe.beats_chance] == [name]


def test_a_planted_border_is_found():
    thumbnails = noise()
    thumbnails[LABELS == 0, :3] = 0
    found, _ = probes(thumbnails=thumbnails)
    assert found["border"].beats_chance


def test_a_shortcut_of_one_patient_is_none():
    """One group with its own size says nothing of the class to anybody else."""
    found, _ = probes(facts=facts_of(width=lambda n: 500 if n < 2 else 100))
    assert not found["image size"].beats_chance


def test_classes_of_few_groups_are_left_out():
    labels = [CLASSES[label] for label in LABELS]
    labels[:4] = ["D"] * 4
    found, notes = probes(manifest_of(label=labels))
    assert notes == ("Left out of the probes, with fewer than 5 groups: D.",)
    assert found["border"].chance == pytest.approx(1 / 3)
    assert probes(manifest_of(label=["A"] * 297 + ["B"] * 3))[0] == {}


def test_the_interval_is_wider_over_groups_than_over_photos():
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 60), 5)
    predicted = np.repeat(rng.integers(0, 2, 60), 5)
    low, high = _interval(labels, predicted, np.arange(300) // 5, 2, 0)
    single_low, single_high = _interval(labels, predicted, np.arange(300), 2, 0)
    assert 1.6 < (high - low) / (single_high - single_low) < 3.0


def test_source_columns_are_known_by_name_and_by_repeating():
    manifest = manifest_of(
        source=["web", "clinic"] * (N // 2), site=[str(n) for n in range(N)], region=["arm"] * N, camera="x"
    )
    assert source_columns(manifest) == ["source"]
    assert source_columns(
        manifest.__class__(manifest.table.assign(region=["arm", "leg"] * (N // 2)), None), ["region"]
    ) == ["region", "source"]
