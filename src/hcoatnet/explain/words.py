"""What checks of a map say, in sentences."""

from hcoatnet.explain.explanation import Explanation
from hcoatnet.explain.faithfulness import Curves
from hcoatnet.explain.randomisation import WARN_FROM, Randomisation

GAME_WORDS = {
    "deletion": "Cells filled with the photo’s mean colour, first those that the map ranks highest",
    "insertion": "Cells put back into a blurred photo, first those that the map ranks highest",
}


def game_sentence(curves: Curves, label: str) -> str:
    """How the map did in one game."""
    areas = curves.chance_areas
    better = "Less" if curves.game == "deletion" else "More"
    return (
        f"{GAME_WORDS[curves.game]}: the mean probability of {label} is {curves.area:.2f}; in random orders it is "
        f"{areas.mean():.2f} ({areas.min():.2f} to {areas.max():.2f}). {better} is better: the map beats "
        f"{curves.beaten} of {len(areas)} random orders."
    )


def randomisation_sentence(found: Randomisation) -> str:
    """How far the map depends on the weights."""
    if found.mean is None or found.spread is None:
        return "Maps that do not vary over the photo cannot be compared with those of untrained models."
    low, high = found.spread
    draws = found.correlations.shape[1]
    text = (
        f"The maps of {draws} untrained models of the same architecture agree with it at a rank correlation of "
        f"{signed(found.mean)} in the mean ({signed(low)} to {signed(high)})."
    )
    if found.hardly_depends:
        return (
            f"This map hardly depends on what the model learnt. {text} From {WARN_FROM} on, a map shows the photo "
            "rather than the model: do not read it as a reason."
        )
    return text


EMPTY = "No place of this photo speaks for {}: its map is 0 everywhere, so there is none to draw or to check."


def answer_sentence(one: Explanation) -> str:
    """What the model says, with its prediction set and whether to abstain."""
    answer = one.answer
    text = f"{answer.top_class}, with a probability of {answer.confidence:.2f}."
    if one.label != answer.top_class:
        text += f" Explained is {one.label}, with {one.probability:.2f}."
    if answer.prediction_set is not None:
        text += f" Prediction set: {', '.join(answer.prediction_set) or 'empty'}."
    return f"{text} {answer.reason}" if answer.reason else text


def signed(value: float) -> str:
    """A number with its sign and two decimals."""
    return f"{value:+.2f}".replace("-", "−")
