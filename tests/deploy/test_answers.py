"""From logits to answers."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from hcoatnet.deploy.answers import Rules
from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.calibration_file import calibration_of_run
from hcoatnet.evaluation.prediction_sets import Thresholds
from hcoatnet.evaluation.predictions import read_predictions

CLASSES = ("blue", "green", "red")
LOGITS = arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4), st.just(3)), elements=st.floats(-30, 30, width=32)
)


def rules(threshold=None, abstain_below=0.0, temperature=1.0):
    thresholds = None if threshold is None else Thresholds("lac", 0.9, False, (threshold,) * 3, 50, 20)
    return Rules(CLASSES, temperature, thresholds, None, 0.9, 0.1, abstain_below, None)


def logits_of(*probabilities):
    return np.log(np.array(probabilities))[:, None, :]


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.floats(0.05, 100))
def test_probabilities_are_the_mean_softmax_of_the_members(logits, temperature):
    found = rules(temperature=temperature).probabilities(logits)
    expected = np.mean(
        [softmax(logits[:, m].astype(np.float64) / temperature, axis=1) for m in range(logits.shape[1])], axis=0
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1)


@settings(max_examples=60, deadline=None)
@given(LOGITS)
def test_an_answer_agrees_with_its_probabilities(logits):
    names = [f"photo {i}" for i in range(len(logits))]
    chosen = rules(threshold=0.6, abstain_below=0.5)
    for row, one in enumerate(chosen.answer(logits, names)):
        assert one.name == names[row]
        assert list(one.probabilities) == list(CLASSES)
        assert one.confidence == max(one.probabilities.values()) == one.probabilities[one.top_class]
        assert one.prediction_set == tuple(name for name, p in one.probabilities.items() if 1 - p <= 0.6)
        assert one.abstain == (one.reason is not None)
        assert one.abstain == (one.confidence < 0.5 or one.prediction_set == ())


def test_reasons_to_abstain():
    sure, unsure = logits_of((0.9, 0.05, 0.05)), logits_of((0.5, 0.3, 0.2))
    assert rules(0.8, 0.7).answer(sure, ["a"])[0].reason is None
    (below,) = rules(0.8, 0.7).answer(unsure, ["a"])
    assert "0.50" in below.reason and "0.70" in below.reason and "10%" in below.reason
    (never,) = rules(0.8, None).answer(sure, ["a"])
    assert never.abstain and "as any other" in never.reason
    (empty,) = rules(0.3, 0.4).answer(unsure, ["a"])
    assert empty.prediction_set == () and "no class is likely enough" in empty.reason
    (no_sets,) = rules(None, 0.4).answer(unsure, ["a"])
    assert no_sets.prediction_set is None and not no_sets.abstain


def test_an_answer_is_plain_data():
    (answer,) = rules(0.8).answer(logits_of((0.9, 0.05, 0.05)), ["a"])
    plain = answer.to_dict()
    assert plain["probabilities"]["blue"] == pytest.approx(0.9)
    assert plain["prediction_set"] == ("blue",)
    assert plain["traces"] == ()


@pytest.fixture(scope="module")
def calibration(study):
    return calibration_of_run(
        read_predictions(study / "runs" / "cnn-scratch-s1-r0-f0" / "predictions_val.csv"), draws=50
    )


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("error_rate", [0.05, 0.1])
def test_rules_are_those_of_the_setting(calibration, method, level, error_rate):
    found = Rules.read(calibration, method=method, level=level, error_rate=error_rate)
    (entry,) = [
        one for one in calibration["conformal"]
        if (one["method"], one["class_conditional"], one["level"]) == (method, False, level)
    ]  # fmt: skip
    assert found.temperature == calibration["temperature"]
    assert (found.thresholds is None) == (entry["thresholds"] is None)
    if found.thresholds is not None:
        assert dict(zip(found.classes, found.thresholds.values, strict=True)) == entry["thresholds"]
    assert found.no_sets_because == entry["refused"]
    (abstain,) = [one for one in calibration["abstain"] if one["error_rate"] == error_rate]
    assert (found.abstain_below, found.no_threshold_because) == (abstain["threshold"], abstain["reason"])


def test_a_level_that_was_not_fitted_is_refused(calibration):
    with pytest.raises(EvidenceError, match=r"level 0\.8.*0\.9, 0\.95"):
        Rules.read(calibration, level=0.8)
    with pytest.raises(EvidenceError, match=r"error_rate 0\.2"):
        Rules.read(calibration, error_rate=0.2)


@pytest.mark.parametrize("lost", ["classes", "temperature", "conformal", "abstain", "photos"])
def test_a_calibration_that_lacks_something_is_refused(calibration, lost):
    with pytest.raises(EvidenceError, match=f"lacks something.*{lost}"):
        Rules.read({name: value for name, value in calibration.items() if name != lost})


def test_answers_need_numpy_alone():
    code = (
        "import sys\n"
        "for name in ('torch', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'timm'): sys.modules[name] = None\n"
        "import hcoatnet.deploy.answers, hcoatnet.deploy.bundle"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
