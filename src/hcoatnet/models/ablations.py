"""The published ablations of H-CoAtNet, as options of one model."""

from dataclasses import dataclass
from typing import Any

from hcoatnet.errors import ModelError


@dataclass(frozen=True)
class Ablation:
    """One row of the published ablation table.

    Attributes:
        description: What is left of the model.
        options: Options of an ``h_coatnet_*`` model that give it.
        published_accuracy: In percent, on the 158 published test photos. All differences are within noise.
        parameters: Trainable parameters with the ``tiny`` backbone, five classes and 224 × 224 photos.
    """

    description: str
    options: dict[str, bool | str]
    published_accuracy: float
    parameters: int


# The published ablation figures were made with the token norm, not with the model's default importance.
ABLATIONS: dict[str, Ablation] = {
    "A0": Ablation("ConvNeXt only", {"transformer": False, "stages": "none"}, 90.51, 27_823_973),
    "A1": Ablation("+ transformer, no H-SE", {"transformer": True, "stages": "none"}, 89.24, 28_863_077),
    "A2": Ablation("+ one H-SE gate, no cut", {"transformer": True, "stages": "gate"}, 89.87, 28_937_621),
    "A3": Ablation(
        "one gate, one random cut to a half",
        {"transformer": True, "stages": "gate:0.5", "importance": "random"},
        88.61,
        28_937_621,
    ),
    "A4": Ablation(
        "one gate, one cut to a half by token norm",
        {"transformer": True, "stages": "gate:0.5", "importance": "norm"},
        88.61,
        28_937_621,
    ),
    "A5": Ablation(
        "full model, cuts by token norm",
        {"transformer": True, "stages": "gate:0.75,gate:0.5", "importance": "norm"},
        89.87,
        29_012_165,
    ),
    "A6": Ablation(
        "no gates, two cuts by token norm",
        {"transformer": True, "stages": "0.75,0.5", "importance": "norm"},
        89.24,
        28_863_077,
    ),
    "A7": Ablation(
        "full model without transformer, cuts by token norm",
        {"transformer": False, "stages": "gate:0.75,gate:0.5", "importance": "norm"},
        89.24,
        27_973_061,
    ),
}


def expand_ablation(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of ablation ``name`` joined with further ``options``.

    Raises:
        ModelError: The name is unknown, or ``options`` sets what the ablation already sets.
    """
    if name not in ABLATIONS:
        raise ModelError(f"The 'ablation' option must be one of {', '.join(ABLATIONS)}. Got {name!r} instead.")
    fixed = ABLATIONS[name].options
    if both := sorted(fixed.keys() & options.keys()):
        raise ModelError(f"Ablation {name} already sets {', '.join(both)}: give the ablation or the option, not both.")
    return {**options, **fixed}
