"""What a comparison allows to be said, and what it does not, in sentences."""

from hcoatnet.evaluation.comparison import FEW, Comparison, Difference, Row
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.floors import MAJORITY
from hcoatnet.evaluation.significance import CorrectedT
from hcoatnet.report.ranking import ranked_rows
from hcoatnet.report.tables import score, written
from hcoatnet.report.words import HARD_SPACE, counted, listed

INITS = {"scratch": "from scratch", "pretrained": "from pretrained weights", "none": "without training"}


def init_words(init: str) -> str:
    """``scratch``, ``pretrained`` or ``pretrained:FILE`` in words."""
    return INITS.get(init.partition(":")[0], init)


def design(comparison: Comparison, arm: Arm) -> str:
    """What was trained and tested, in one sentence.

    Args:
        comparison: Any comparison of the arm.
        arm: A trained arm; all others share its folds.
    """
    models = sum(row.init != "none" for row in comparison.rows)
    photos = f"{counted(comparison.photos, 'photo')} of {counted(comparison.groups, 'group')}"
    folds, repeats = len({fold for _, fold in arm.places}), len(arm.repeats)
    once = f"on the training photos of one split and tested on {photos}"
    crossed = f"in a {folds}-fold cross-validation of {photos}"
    split = once if len(arm.places) == 1 else crossed + (f", repeated {repeats} times" if repeats > 1 else "")
    seeds = "one seed" if len(arm.seeds) == 1 else f"{len(arm.seeds)} seeds"
    was = "was" if models == 1 else "were"
    return f"{counted(models, 'model')} {was} trained {init_words(comparison.init)} {split}, with {seeds}."


def summary(comparison: Comparison, arm: Arm) -> str:
    """The design and the highest macro F1, for the top of a page."""
    best = next(row for row in ranked_rows(comparison) if row.init != "none")
    floor = next((row for row in comparison.rows if row.name == MAJORITY), None)
    highest = f"The highest macro F1 is that of {best.name}: {_with_interval(best, comparison)}."
    below = "" if floor is None else f" Always naming the most common class gives {_macro_f1(floor)}."
    never = " No photo was judged by a model that had seen its group." if len(arm.places) > 1 else ""
    return f"{design(comparison, arm)}{never} {highest}{below}"


def can_be_said(comparison: Comparison) -> list[str]:
    """Differences that the data bear out, and how far a seed moves the result."""
    found = [one for one in comparison.differences if one.verdict != "not distinguishable"]
    sentences = [_difference(one, comparison) for one in found if one.name != MAJORITY]
    sentences += [_above_floor(one, comparison) for one in found if one.name == MAJORITY]
    spreads = [row.seed_spread for row in comparison.rows if row.seed_spread is not None and row.init != "none"]
    if spreads:
        seeds = max(len(row.seeds) for row in comparison.rows)
        sentences.append(
            f"Another seed moves macro F1 by up to {max(spreads):.3f} (standard deviation over {seeds} seeds, the "
            "largest of all rows)."
        )
    return sentences or ["Nothing about the order of these models."]


def cannot_be_said(comparison: Comparison) -> list[str]:
    """What the data do not bear out, and what was not looked at."""
    sentences = [_undecided(one, comparison) for one in comparison.differences if one.verdict == "not distinguishable"]
    sentences += _unsupported(comparison)
    if sum(row.init != "none" for row in comparison.rows) > 2:
        sentences.append(
            f"How the other models stand to each other: each was compared with {comparison.reference} only."
        )
    if all(row.seed_spread is None for row in comparison.rows):
        sentences.append("How far another seed would move these figures: there is only one.")
    if comparison.few:
        sentences.append(
            f"Much about {listed(comparison.few)}: with fewer than {FEW} photos, a few of them decide its figures."
        )
    sentences.append("Anything about photos of other cameras, clinics or skin types than those in this data set.")
    return sentences


def _difference(one: Difference, comparison: Comparison) -> str:
    value = one.macro_f1.value or 0.0
    direction = "higher" if value > 0 else "lower"
    return (
        f"{one.name} is {one.verdict} than {one.reference}: its macro F1 is {abs(value):.3f} {direction} "
        f"({_difference_interval(one, comparison)}; {_p_holm(one)})."
    )


def _unsupported(comparison: Comparison) -> list[str]:
    """Decided differences that the test over folds, which allows for other training photos, too, does not bear out."""
    doubtful = [
        one
        for one in comparison.differences
        if one.verdict != "not distinguishable"
        and one.corrected_t is not None
        and not _agrees(one.corrected_t, one.macro_f1.value or 0.0, comparison.level)
    ]
    if not doubtful:
        return []
    names = listed([one.name for one in doubtful])
    p = listed([written(one.corrected_t.p_holm, "p") for one in doubtful if one.corrected_t is not None])
    return [
        f"Whether {names} would also differ from {comparison.reference} had all been trained on other photos: the "
        f"corrected t test over folds, which allows for that, gives p = {p}."
    ]


def _agrees(t: CorrectedT, difference: float, level: float) -> bool:
    return t.p_holm < 1 - level and t.mean * difference > 0


def _above_floor(one: Difference, comparison: Comparison) -> str:
    if comparison.reference == MAJORITY:
        return _difference(one, comparison)
    turned = {"better": "worse", "worse": "better"}[one.verdict]
    return f"{one.reference} is {turned} than always naming the most common class ({_p_holm(one)})."


def _undecided(one: Difference, comparison: Comparison) -> str:
    return (
        f"Whether {one.name} or {one.reference} is better. They are not distinguishable: the difference in macro F1 is "
        f"{written(one.macro_f1.value, 'difference')} ({_difference_interval(one, comparison)}), and a true difference "
        f"would have to be {one.detectable:.3f} to be found four times in five."
    )


def _difference_interval(one: Difference, comparison: Comparison) -> str:
    text = score(one.macro_f1, "difference").interval_text
    return f"{_level(comparison)} interval {text}" if text else "no interval can be given"


def _with_interval(row: Row, comparison: Comparison) -> str:
    text = score(row.metrics["macro_f1"]).interval_text
    return _macro_f1(row) + (f" ({_level(comparison)} interval {text})" if text else "")


def _macro_f1(row: Row) -> str:
    return written(row.metrics["macro_f1"].value)


def _level(comparison: Comparison) -> str:
    return f"{100 * comparison.level:.3g}{HARD_SPACE}%"


def _p_holm(one: Difference) -> str:
    text = written(one.p_holm, "p")
    return f"p {text if text.startswith('<') else '= ' + text} after Holm’s correction"
