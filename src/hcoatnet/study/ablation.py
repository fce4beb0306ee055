"""The ablation study of H-CoAtNet: the published rows A0 to A7, every token importance, and a repeated first stage."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hcoatnet.errors import ConfigError, ModelError
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.settings import Scalar
from hcoatnet.study.definition import Variant

REFERENCE = "full-gradient"
"""The row of the model as it is by default."""

REPEATED = "full-stage1x3"
REPEATS = 3
"""The published "deeper" variant applies the first stage three times with the same weights."""

CONFIDENT = 0.9
"""A probability from which an answer counts as confident."""

VARIED = ("transformer", "stages", "importance", "stage1_repeats")
"""Options of the model that the ablation sets."""


def ablation_variants(
    model: str, options: Mapping[str, Scalar], image_size: int
) -> tuple[tuple[Variant, ...], tuple[str, ...]]:
    """The rows of the ablation study of one model.

    Args:
        model: An H-CoAtNet of any size.
        options: Options that all rows share, such as a backbone.
        image_size: Side of the photos, in pixels.

    Returns:
        The rows, and what is to be said: rows that are the same model as another, or that this backbone cannot have.

    Raises:
        ConfigError: ``options`` sets what the ablation varies.
        ModelError: The model has no such options.
    """
    if clashing := sorted(set(VARIED) & set(options)):
        raise ConfigError(f"The ablation sets {', '.join(clashing)} itself: leave it out of --model-options.")
    rows: dict[str, dict[str, Scalar]] = {}
    notes = []
    for name, own in _named_options().items():
        same = next((other for other, theirs in rows.items() if _effective(theirs) == _effective(own)), None)
        if same is not None:
            notes.append(f"{name} is the same model as {same}; it is trained once.")
        elif reason := _refusal(model, {**options, **own}, image_size) if name == REPEATED else "":
            notes.append(f"{name} is left out: {reason}")
        else:
            rows[name] = own
    variants = [Variant(name, {"model": model, "model_options": {**options, **own}}) for name, own in rows.items()]
    return tuple(variants), tuple(notes)


def chosen_rows(variants: Sequence[Variant], names: Sequence[str]) -> tuple[Variant, ...]:
    """The rows of these names, or all where none is named.

    Raises:
        ConfigError: There is no such row.
    """
    there = {one.name: one for one in variants}
    if unknown := [name for name in names if name not in there]:
        raise ConfigError(f"There is no row {unknown[0]!r} in the ablation. The rows are: {', '.join(there)}.")
    return tuple(there[name] for name in names) or tuple(variants)


def confident_errors(arm: Arm, threshold: float = CONFIDENT) -> float:
    """Share of the test photos whose wrong class has a probability of at least ``threshold``; mean over replicates."""
    shares = []
    for replicate in arm.replicates:
        table = replicate.predictions
        wrong = table.predicted != table.labels
        shares.append(np.mean(wrong & (table.probabilities.max(axis=1) >= threshold)))
    return float(np.mean(shares))


def _named_options() -> dict[str, dict[str, Scalar]]:
    from hcoatnet.models.ablations import ABLATIONS
    from hcoatnet.models.token_pruning import IMPORTANCES

    rows: dict[str, dict[str, Scalar]] = {name: dict(one.options) for name, one in ABLATIONS.items()}
    rows |= {f"full-{importance}": {"importance": importance} for importance in IMPORTANCES}
    return rows | {REPEATED: {"stage1_repeats": REPEATS}}


def _effective(options: Mapping[str, Scalar]) -> dict[str, Any]:
    from hcoatnet.models.h_coatnet import HCoAtNet

    parameters = inspect.signature(HCoAtNet.__init__).parameters
    return {name: options.get(name, parameters[name].default) for name in VARIED}


def _refusal(model: str, options: Mapping[str, Any], image_size: int) -> str:
    """Why the model cannot be built with these options; empty where it can."""
    from hcoatnet.models import registry

    try:
        registry.create(model, 2, image_size, **options)
    except ModelError as error:
        return str(error)
    return ""
