"""``calibration.json`` holds what the functions behind it give, and says where it comes from."""

import json
from dataclasses import replace

import numpy as np
import pytest
from simulated import labelled, simulated, simulated_arm

from hcoatnet.evaluation.calibration import LOWEST_TEMPERATURE, calibrated, fit_temperature
from hcoatnet.evaluation.calibration_file import calibration_of_run, calibration_of_study
from hcoatnet.evaluation.conformal import conformal_out_of_fold, fit_thresholds
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.prediction_sets import prediction_sets
from hcoatnet.evaluation.selective import abstain_threshold

KEYS = [
    "format",
    "classes",
    "source",
    "photos",
    "groups",
    "per_class",
    "approximate",
    "approximate_because",
    "measured_on",
    "temperature",
    "temperature_at_bound",
    "conformal",
    "abstain",
]


def entry(content, method, conditional, level):
    found = [
        one
        for one in content["conformal"]
        if (one["method"], one["class_conditional"], one["level"]) == (method, conditional, level)
    ]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def val():
    return simulated(1, 300, signal=2.5, scale=3.0, prefix="v")


@pytest.fixture(scope="module")
def test_photos():
    return simulated(2, 200, scale=3.0, prefix="t")


@pytest.fixture(scope="module")
def content(val, test_photos):
    return calibration_of_run(val, test_photos, draws=100)


class TestRun:
    def test_it_is_json_and_says_where_it_comes_from(self, content, val):
        assert list(content) == KEYS
        assert content["format"] == 1
        assert json.loads(json.dumps(content, allow_nan=False)) == content
        assert content["source"] == "validation photos of the run"
        assert (content["photos"], content["groups"]) == (300, 150)
        of_class = {name: val.groups[val.labels == index] for index, name in enumerate(val.classes)}
        counts = {name: {"photos": len(groups), "groups": len(set(groups))} for name, groups in of_class.items()}
        assert content["per_class"] == counts
        assert content["approximate"] is True
        assert "also chose the checkpoint" in content["approximate_because"]

    def test_thresholds_are_of_the_scaled_validation_probabilities(self, content, val):
        assert content["temperature"] == fit_temperature(val.logits, val.labels)
        assert content["temperature_at_bound"] is False
        scaled = calibrated(val, content["temperature"])
        assert len(content["conformal"]) == 8
        for one in content["conformal"]:
            expected = fit_thresholds(
                scaled.probabilities, val.labels, val.groups, one["level"], one["method"], one["class_conditional"]
            )
            assert tuple(one["thresholds"].values()) == expected.values
            assert tuple(one["thresholds"]) == val.classes
            assert one["refused"] is None
            assert one["least_groups"] == {0.9: 9, 0.95: 19}[one["level"]]

    def test_coverage_is_measured_on_the_test_photos(self, content, val, test_photos):
        assert content["measured_on"] == "test photos of the run"
        scaled, answers = (calibrated(table, content["temperature"]) for table in (val, test_photos))
        for one in content["conformal"]:
            thresholds = fit_thresholds(
                scaled.probabilities, val.labels, val.groups, one["level"], one["method"], one["class_conditional"]
            )
            sets = prediction_sets(answers.probabilities, thresholds)
            covered = sets[np.arange(200), test_photos.labels]
            measured = one["measured"]
            assert measured["coverage"] == pytest.approx(covered.mean())
            assert measured["mean_set_size"] == pytest.approx(sets.sum(axis=1).mean())
            assert measured["empty_sets"] == pytest.approx((~sets.any(axis=1)).mean())
            assert measured["coverage_interval"][0] < measured["coverage"] < measured["coverage_interval"][1]
            assert measured["coverage_wilson"][0] < measured["coverage"] < measured["coverage_wilson"][1]
            assert (measured["photos"], measured["groups"]) == (200, 100)
            assert measured["per_class"]["b"]["coverage"] == pytest.approx(covered[test_photos.labels == 1].mean())

    def test_abstain_thresholds_are_of_the_scaled_validation_probabilities(self, content, val):
        scaled = calibrated(val, content["temperature"])
        assert [one["error_rate"] for one in content["abstain"]] == [0.05, 0.1]
        for one in content["abstain"]:
            expected = abstain_threshold(scaled, one["error_rate"], draws=100)
            assert one["threshold"] == expected.threshold is not None
            assert one["interval"] == (expected.interval and [expected.interval.low, expected.interval.high])
            assert one["wilson"] == [expected.wilson.low, expected.wilson.high]
            assert (one["photos"], one["error"]) == (expected.photos, expected.error)

    def test_with_the_test_set_closed_only_the_measurement_is_missing(self, content, val):
        closed = calibration_of_run(val, draws=100)
        assert closed["measured_on"] is None
        why = {"measured": None, "not_measured_because": "The test photos were not opened."}
        bare = [one | why for one in content["conformal"]]
        assert closed == content | {"measured_on": None, "conformal": bare}

    def test_what_few_groups_cannot_support_is_recorded_as_refused(self, test_photos):
        content = calibration_of_run(simulated(3, 60, photos_a_group=4), test_photos, draws=20)
        assert entry(content, "lac", False, 0.9)["thresholds"] is not None
        for setting in (("lac", False, 0.95), ("aps", False, 0.95), ("aps", True, 0.9)):
            one = entry(content, *setting)
            assert one["thresholds"] is one["measured"] is None
            assert f"at least {one['least_groups']} groups" in one["refused"] == one["not_measured_because"]
        assert "there are 15" in entry(content, "aps", False, 0.95)["refused"]

    def test_one_photo_a_class(self):
        labels = np.arange(3)
        content = calibration_of_run(labelled(labels, np.eye(3)), labelled(labels, np.eye(3), prefix="t"), draws=20)
        assert (content["temperature"], content["temperature_at_bound"]) == (LOWEST_TEMPERATURE, True)
        assert all(one["refused"] for one in content["conformal"])
        json.dumps(content, allow_nan=False)


class TestStudy:
    def test_it_is_fitted_on_the_out_of_fold_photos_of_the_first_replicate(self):
        arm = simulated_arm(seeds=(4, 5), val_n=400)
        content = calibration_of_study(arm, draws=50)
        pooled = arm.replicates[0].predictions
        assert list(content) == KEYS
        assert content["source"] == "out-of-fold test photos, seed 4, repeat 0"
        assert (content["photos"], content["groups"]) == (360, 180)
        assert content["temperature"] == fit_temperature(pooled.logits, pooled.labels)
        scaled = calibrated(pooled, content["temperature"])
        thresholds = fit_thresholds(scaled.probabilities, pooled.labels, pooled.groups, 0.9, "aps")
        assert tuple(entry(content, "aps", False, 0.9)["thresholds"].values()) == thresholds.values
        assert content["abstain"][1]["threshold"] == abstain_threshold(scaled, 0.1, draws=50).threshold
        assert content["approximate"] is True
        assert "several folds" in content["approximate_because"]
        json.dumps(content, allow_nan=False)

    def test_the_measured_coverage_is_that_of_sets_calibrated_inside_each_cell(self):
        arm = simulated_arm(val_n=400)
        content = calibration_of_study(arm, draws=50)
        assert content["measured_on"].startswith("test photos of every cell")
        for one in conformal_out_of_fold(arm, draws=50):
            found = entry(content, one.method, one.class_conditional, one.level)
            assert found["measured"]["coverage"] == one.measured.overall.coverage.value
            assert found["measured"]["mean_set_size"] == one.measured.overall.set_size.value

    def test_a_level_that_the_pool_supports_and_a_cell_does_not_has_no_measurement(self):
        one = entry(calibration_of_study(simulated_arm(val_n=36), draws=10), "lac", False, 0.95)
        assert one["thresholds"] is not None
        assert one["refused"] is one["measured"] is None
        assert "fold 0, seed 1" in one["not_measured_because"]
        assert "there are 18" in one["not_measured_because"]

    def test_other_seeds_and_validation_photos_do_not_move_the_thresholds(self):
        arm = simulated_arm(seeds=(4, 5), val_n=100)
        other = tuple(replace(cell, val=simulated(cell.fold, 90, prefix="w")) for cell in arm.cells if cell.seed == 4)
        one, two = (calibration_of_study(each, draws=10) for each in (arm, Arm("other", "scratch", other)))
        for key in ("temperature", "abstain"):
            assert one[key] == two[key]
        for left, right in zip(one["conformal"], two["conformal"], strict=True):
            assert left["thresholds"] == right["thresholds"]
