"""What is said follows from the verdicts, with their numbers, and nothing else is claimed."""

from dataclasses import replace

import pytest
from simulated_study import simulate_arm, simulate_photos, three_arms

from hcoatnet.evaluation.comparison import Comparison, compare
from hcoatnet.evaluation.floors import majority
from hcoatnet.report.findings import can_be_said, cannot_be_said, design, summary
from hcoatnet.report.tables import score, written


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    arms = three_arms()
    return compare([*arms, majority(arms[0])], "beta_b", replicates=200)


def difference(comparison: Comparison, name: str):
    return next(one for one in comparison.differences if one.name == name)


def with_verdict(comparison: Comparison, name: str, verdict: str) -> Comparison:
    changed = tuple(replace(one, verdict=verdict) if one.name == name else one for one in comparison.differences)
    return replace(comparison, differences=changed)


def test_every_difference_stands_on_one_side(comparison: Comparison) -> None:
    can, cannot = " ".join(can_be_said(comparison)), " ".join(cannot_be_said(comparison))
    for one in comparison.differences:
        decided = one.verdict != "not distinguishable"
        name = "always naming the most common class" if one.name == "majority" else one.name
        assert (name in can) == decided
        assert (f"Whether {one.name} or" in cannot) == (not decided)


def test_a_decided_difference_has_its_numbers(comparison: Comparison) -> None:
    one = difference(comparison, "gamma")
    assert one.verdict == "worse"
    (sentence,) = [text for text in can_be_said(comparison) if text.startswith("gamma")]
    assert f"gamma is worse than beta_b: its macro F1 is {abs(one.macro_f1.value):.3f} lower" in sentence
    assert score(one.macro_f1, "difference").interval_text in sentence
    assert written(one.p_holm, "p") in sentence


def test_an_undecided_one_says_what_could_have_been_found(comparison: Comparison) -> None:
    comparison = with_verdict(comparison, "alpha", "not distinguishable")
    one = difference(comparison, "alpha")
    (sentence,) = [text for text in cannot_be_said(comparison) if text.startswith("Whether alpha")]
    assert written(one.macro_f1.value, "difference") in sentence
    assert f"{one.detectable:.3f}" in sentence


def test_a_verdict_that_the_test_over_folds_does_not_bear_out_says_so(comparison: Comparison) -> None:
    one = difference(comparison, "gamma")
    weak = replace(one, corrected_t=replace(one.corrected_t, p_holm=0.2))
    (sentence,) = [text for text in cannot_be_said(replace(comparison, differences=(weak,))) if "corrected t" in text]
    assert "Whether gamma would also differ from beta_b" in sentence
    assert sentence.endswith("gives p = 0.200.")
    strong = replace(one, corrected_t=replace(one.corrected_t, p_holm=0.01))
    assert "corrected t" not in " ".join(cannot_be_said(replace(comparison, differences=(strong,))))


def test_nothing_decided_says_nothing_of_an_order(comparison: Comparison) -> None:
    undecided = replace(
        comparison,
        differences=tuple(replace(one, verdict="not distinguishable") for one in comparison.differences),
        rows=tuple(replace(row, seed_spread=None) for row in comparison.rows),
    )
    assert can_be_said(undecided) == ["Nothing about the order of these models."]
    assert "How far another seed would move these figures: there is only one." in cannot_be_said(undecided)


def test_seed_spread_and_few_photos_are_said(comparison: Comparison) -> None:
    largest = max(row.seed_spread for row in comparison.rows if row.seed_spread is not None)
    assert any(f"up to {largest:.3f}" in text for text in can_be_said(comparison))
    few = replace(comparison, few=("plain_skin 100%",))
    assert any("plain_skin 100%" in text and "fewer than 30" in text for text in cannot_be_said(few))


def test_the_design_in_words(comparison: Comparison) -> None:
    arms = three_arms()
    photos = f"{comparison.photos} photos of {comparison.groups} groups"
    expected = f"3 models were trained from scratch in a 3-fold cross-validation of {photos}, with 2 seeds."
    assert design(comparison, arms[0]) == expected
    best = max((row for row in comparison.rows), key=lambda row: row.metrics["macro_f1"].value)
    text = summary(comparison, arms[0])
    assert f"that of {best.name}: {written(best.metrics['macro_f1'].value)}" in text
    assert "Always naming the most common class gives" in text


def test_a_hold_out_split_in_words() -> None:
    arm = simulate_arm("alpha", simulate_photos(folds=2), 1.5)
    comparison = compare([arm], replicates=100)
    assert "1 model was trained from scratch on the training photos of one split" in design(comparison, arm)
    assert "had seen its group" not in summary(comparison, arm)
