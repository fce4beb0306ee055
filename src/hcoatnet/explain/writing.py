"""Explanations as files: a figure and the numbers of each photo, and one page of all."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hcoatnet.data.images import PhotoError, open_photo, resize_photo
from hcoatnet.deploy.photo_search import Found, printable
from hcoatnet.errors import ConfigError, DataProblems, Problem
from hcoatnet.explain import figures, words
from hcoatnet.explain.explanation import CHUNK, Explanation, explain
from hcoatnet.explain.pictures import scales, tiles
from hcoatnet.explain.subject import Subject
from hcoatnet.files import write_bytes, write_json, write_text
from hcoatnet.report import drawing
from hcoatnet.report.page import Picture, render
from hcoatnet.report.words import counted

MOST = 100
"""Photos on one page."""
SHOWN_SIDE, PAGE_SIDE = 512, 224
"""Pixels of the longer side of a photo in its figure, at most, and on the page."""
PAGE = "explanations.html"


@dataclass(frozen=True, eq=False)
class Opened:
    """A photo that could be opened.

    Attributes:
        path: Its file.
        name: Its file's name, as text that can be written.
        pixels: What the model gets, (S, S, 3).
        shown: The photo to draw on, of a moderate size.
    """

    path: Path
    name: str
    pixels: NDArray[np.uint8]
    shown: Image.Image


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        page: The page.
        explained: Number of photos on it.
        problems: Photos that could not be opened.
        seconds: How long it took.
    """

    page: Path
    explained: int
    problems: tuple[Problem, ...]
    seconds: float


def write_explanations(
    subject: Subject, found: Iterable[Found], out: Path, *, label: str | None = None, checks: bool = True
) -> Written:
    """Explain photos, into ``<name>.explanation.png`` and ``.json`` for each, and a page with all.

    A photo that cannot be opened is listed, and the others go on.

    Args:
        subject: The model.
        found: The photos, :data:`MOST` at most, and places without any.
        out: Folder to write to.
        label: Class to explain; by default the most probable one of each photo.
        checks: Whether to check the maps.

    Raises:
        ConfigError: There are too many photos, or the model knows no such class.
        DataProblems: No photo can be opened.
    """
    started = time.monotonic()
    places = list(islice(found, MOST + 1))
    if len(places) > MOST:
        raise ConfigError(
            f"A page explains {MOST} photos at most. There are more. Choose among them, or use --gallery for a whole "
            "validation or test set."
        )
    if label is not None:
        subject.class_index(label)
    problems: list[Problem] = []
    sections: list[dict[str, Any]] = []
    taken: set[str] = set()
    for chunk in chunks(opened(places, subject.classifier.image_size, problems)):
        explanations = explain(
            subject,
            [one.pixels for one in chunk],
            [one.name for one in chunk],
            labels=[label] * len(chunk) if label else None,
            checks=checks,
        )
        out.mkdir(parents=True, exist_ok=True)
        for photo, one in zip(chunk, explanations, strict=True):
            name = Path(photo.name)
            stem = _unique_stem(name, taken)
            _write_one(one, photo.shown, out / f"{stem}.explanation")
            sections.append({"name": f"{stem}{name.suffix}", **_section(one, photo.shown, len(sections))})
    if not sections:
        raise DataProblems("None of the photos can be opened; nothing was written.", problems)
    seconds = time.monotonic() - started
    write_text(out / PAGE, render("explanations.html.jinja", _context(subject, sections, problems)))
    return Written(out / PAGE, len(sections), tuple(problems), seconds)


def opened(found: Iterable[Found], image_size: int, problems: list[Problem]) -> Iterator[Opened]:
    """Open photos one by one; those that cannot be are added to ``problems``."""
    for one in found:
        if isinstance(one, Problem):
            problems.append(replace(one, path=Path(one.path).name))  # a page names no folders
            continue
        name = printable(Path(one.name))
        try:
            photo = open_photo(one, name)
        except PhotoError as error:
            problems.append(error.problem)
            continue
        pixels = resize_photo(photo, image_size)
        yield Opened(one, name, pixels, _to_draw(photo))


def _to_draw(photo: Image.Image) -> Image.Image:
    """The photo at a size at which it and what is drawn on it can be seen."""
    longer = max(photo.size)
    scale = min(max(longer, PAGE_SIDE), SHOWN_SIDE) / longer
    return photo.resize(
        (max(1, round(photo.width * scale)), max(1, round(photo.height * scale))), Image.Resampling.BICUBIC
    )


def chunks(photos: Iterator[Opened]) -> Iterator[list[Opened]]:
    """Photos in lists of :data:`~hcoatnet.explain.explanation.CHUNK` at most."""
    while chunk := list(islice(photos, CHUNK)):
        yield chunk


def _unique_stem(name: Path, taken: set[str]) -> str:
    """A file's name without suffix, with a number where that is taken by another photo."""
    stem, number = name.stem, 1
    while stem.casefold() in taken:
        number += 1
        stem = f"{name.stem}-{number}"
    taken.add(stem.casefold())
    return stem


def _write_one(one: Explanation, photo: Image.Image, stem: Path) -> None:
    # No photo has such a name: a figure must never replace the photo that it explains.
    write_bytes(stem.with_name(f"{stem.name}.png"), drawing.png(figures.draw_explanation(one, photo), drawing.PNG_DPI))
    write_json(stem.with_name(f"{stem.name}.json"), one.to_dict())


def _section(one: Explanation, photo: Image.Image, number: int) -> dict[str, Any]:
    curves = None
    if one.curves is not None:
        curves = Picture(
            name=f"curves-{number}",
            figure=figures.draw_curves(one.curves),
            text=figures.describe_curves(one.curves),
            # The number keeps the names of two photos' curves apart, as a screen reader lists them.
            caption=f"Curves of photo {number + 1}. Blue: in the map’s order. Grey: the reach of the random orders.",
        )
    warning = one.randomisation is not None and one.randomisation.hardly_depends
    lines = [words.EMPTY.format(one.label)] if one.empty else []
    lines += [words.game_sentence(game, one.label) for game in one.curves or ()]
    if one.randomisation is not None and not warning:
        lines.append(words.randomisation_sentence(one.randomisation))
    return {
        "answer": words.answer_sentence(one),
        "tiles": tiles(one, photo, PAGE_SIDE),
        "curves": curves,
        "lines": lines,
        "warning": words.randomisation_sentence(one.randomisation) if warning and one.randomisation else None,
    }


def _context(subject: Subject, sections: Sequence[Mapping[str, Any]], problems: Sequence[Problem]) -> dict[str, Any]:
    members = len(subject.models)
    return {
        "title": f"Why {subject.name} answers as it does",
        "kicker": "Explanations",
        "facts": [
            counted(len(sections), "photo"),
            *([f"mean of {members} models"] if members > 1 else []),
            f"maps of {subject.place}",
            *subject.on_views,
        ],
        "synthetic": False,
        "sections": sections,
        "problems": problems,
        "prunes": subject.classifier.prunes,
        "members": members,
        "scales": scales(),
    }
