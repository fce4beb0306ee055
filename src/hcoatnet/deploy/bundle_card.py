"""The model card of a bundle: what files say, what its author adds, and what is to be known of the bundle itself."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hcoatnet.config import read_yaml
from hcoatnet.deploy.answers import ERROR_RATE, LEVEL, METHOD
from hcoatnet.deploy.bundle import CALIBRATION, CONFIG
from hcoatnet.deploy.bundle_source import BundleSource
from hcoatnet.errors import BundleError
from hcoatnet.report.card import LAYOUT, Card, Entry, card_of
from hcoatnet.report.words import VIEWS, percent

NOT_STATED = "not stated"
LICENCE_ENTRY = "Licence of the weights"
HEADING = "This bundle"
UNTESTED = (
    "The average itself. Every photo trained or chose some of its models, so none is left that is new to all of them. "
    "What stands under Evaluation, the temperature and the thresholds describe single models on photos that they had "
    "not seen. An average is usually less extreme than what it is made of; then prediction sets hold more classes, and "
    "more photos are left to a person, than need be."
)


def read_author_entries(file: Path) -> dict[str, str]:
    """What the author says, from a YAML file of card entries and texts.

    Raises:
        ConfigError: The file cannot be read, or is no mapping.
        BundleError: An entry is not one that is left to the author, or is no text.
    """
    theirs = [name for _, entries in LAYOUT for name, key in entries if key is None and name != LICENCE_ENTRY]
    given = read_yaml(file)
    for name, text in given.items():
        if name == LICENCE_ENTRY:
            raise BundleError(f"{file}: say the licence of the weights with --licence.")
        if name not in theirs:
            near = difflib.get_close_matches(str(name), theirs, n=1, cutoff=0.4)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise BundleError(
                f"{file}: '{name}' is no entry of the card that its author fills. {hint}These are: {', '.join(theirs)}."
            )
        if not isinstance(text, str) or not text.strip():
            raise BundleError(f"{file}: '{name}' must be a text. Got {text!r} instead.")
    return given


def bundle_card(source: BundleSource, licence: str, origin: str | None, author: Mapping[str, str]) -> Card:
    """The card.

    Args:
        source: What the bundle is made of.
        licence: Licence of the weights.
        origin: A sentence about the licence of the weights that training began from; None where there were none.
        author: Texts of entries that only the author knows.
    """
    known = card_of(source.name, source.facts)
    said = licence if origin is None else f"{licence}. {origin}"
    texts = dict(author) if said == NOT_STATED else {**author, LICENCE_ENTRY: said}
    model, *others = ((heading, tuple(_filled(one, texts) for one in entries)) for heading, entries in known.sections)
    return Card(known.title, (model, (HEADING, _about(source)), *others))


def card_content(card: Card) -> dict[str, Any]:
    """The card as ``card.json`` holds it."""
    return {
        "title": card.title,
        "sections": [
            {"heading": heading, "entries": [vars(entry) for entry in entries]} for heading, entries in card.sections
        ],
    }


def _filled(entry: Entry, texts: Mapping[str, str]) -> Entry:
    return replace(entry, value=texts[entry.name], missing=False) if entry.name in texts else entry


def _about(source: BundleSource) -> tuple[Entry, ...]:
    """What the bundle adds to the training: what answers, how it is calibrated, and what nobody has tested."""
    members, size, content = len(source.runs), source.config.image_size, source.calibration
    answers = "one trained model"
    if members > 1:
        answers = (
            f"{members} models, one for each fold of a cross-validation (seed {source.config.seed}); their calibrated "
            "probabilities are averaged"
        )
    reads = f"the whole photo, resized to {size} × {size} pixels (bicubic)"
    if source.config.views != "one":
        reads += f"; the logits are the mean over {VIEWS[source.config.views]}"
    entries = [
        Entry("What answers", answers, CONFIG, missing=False),
        Entry("What it reads", reads, CONFIG, missing=False),
        Entry("Temperature", _temperature(content), CALIBRATION, missing=False),
        Entry("Prediction sets", _sets(content, members), CALIBRATION, missing=False),
        Entry("Abstaining", _abstaining(content), CALIBRATION, missing=False),
        Entry("Only approximate", content["approximate_because"], CALIBRATION, missing=False),
    ]
    if members > 1:
        entries.append(Entry("Not tested", UNTESTED, "", missing=False))
    return tuple(entries)


def _temperature(content: Mapping[str, Any]) -> str:
    return (
        f"{content['temperature']:.3f}, fitted on {content['photos']:,} photos of {content['groups']:,} groups "
        f"({content['source']})"
    )


def _sets(content: Mapping[str, Any], members: int) -> str:
    entry = _entry(content["conformal"], {"method": METHOD, "class_conditional": False, "level": LEVEL})
    if entry["refused"] is not None:
        return f"none: {entry['refused']}"
    aim = f"aim: in {percent(LEVEL)} of photos the true class is inside"
    measured = entry["measured"]
    if measured is None:
        return f"{aim}. Not measured: {entry['not_measured_because']}"
    of_what = " with single models" if members > 1 else ""
    return (
        f"{aim}. Measured{of_what}: {percent(measured['coverage'])}, with {measured['mean_set_size']:.2f} classes on "
        f"average ({content['measured_on']})"
    )


def _abstaining(content: Mapping[str, Any]) -> str:
    entry = _entry(content["abstain"], {"error_rate": ERROR_RATE})
    if entry["threshold"] is None:
        return f"every photo is left to a person. {entry['reason']}"
    return (
        f"below a confidence of {entry['threshold']:.3f}. Above it were {percent(entry['coverage'])} of the photos, "
        f"and {percent(entry['error'])} of their answers were wrong"
    )


def _entry(entries: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(entry for entry in entries if all(entry[key] == value for key, value in wanted.items()))
