"""A page of a run's photos: named rightly, named wrongly, and least certain."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from hcoatnet.deploy.bundle import is_bundle
from hcoatnet.errors import ConfigError, DataProblems, Problem, RunError
from hcoatnet.evaluation.predictions import Floats, Predictions, read_predictions
from hcoatnet.explain import words
from hcoatnet.explain.explanation import Explanation, explain
from hcoatnet.explain.pictures import Tile, scales, tiles
from hcoatnet.explain.sampling import SampleChecks, check_photos
from hcoatnet.explain.subject import Subject, load_subject
from hcoatnet.explain.writing import Written, chunks, opened
from hcoatnet.files import write_json, write_text
from hcoatnet.report.page import render
from hcoatnet.report.tables import Label, Table, Value
from hcoatnet.report.words import counted
from hcoatnet.training.preparation import ledger_of, stored_data
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import record_test_opening

MOST = 24
"""Photos in each part of a page, so that it stays a few megabytes."""
SIDE = 144
SAMPLE = 20
SAMPLE_SEED = 0

Subset = Literal["val", "test"]
NAMES: dict[Subset, str] = {"val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class _Shown:
    """A photo on the page.

    Attributes:
        named: Explained for the class that it was named.
        true: Explained for its true class, where that is another.
        tiles: Its pictures.
    """

    named: Explanation
    true: Explanation | None
    tiles: list[Tile]


def write_gallery(
    path: Path, *, out: Path | None = None, subset: Subset = "test", count: int = 12, checks: bool = True
) -> Written:
    """Write ``gallery_<subset>.html`` and ``gallery_<subset>.json`` of a finished run.

    Args:
        path: The run directory.
        out: Folder to write to; ``gallery`` in the run by default.
        subset: Whose photos. A look at the test photos is recorded in the test ledger.
        count: Photos in each part, :data:`MOST` at most.
        checks: Whether to check the maps of a sample of the photos.

    Raises:
        ConfigError: ``count`` is out of range, or ``path`` is a bundle.
        RunError: The run is not finished, its test set was left closed, or its photos are gone.
        DataProblems: None of its photos can be opened.
    """
    started = time.monotonic()
    if not 1 <= count <= MOST:
        raise ConfigError(f"The 'count' option must be an int from 1 to {MOST}. Got {count} instead.")
    if is_bundle(path):
        raise ConfigError(f"{path} is a bundle, which holds no photos. A gallery needs the run that it was made from.")
    run = RunDirectory(path)
    config = run.settings()
    run.results()
    if not run.predictions_file(subset).exists():
        raise RunError(
            f"The run {path} has no predictions of its {NAMES[subset]} photos: its test set was left closed. Use "
            "--subset val."
        )
    predictions = read_predictions(run.predictions_file(subset))
    folder = stored_data(config, run).manifest.folder
    subject = load_subject(path)
    if subset == "test":
        record_test_opening(run, config, ledger_of(config))
    probabilities = subject.classifier.rules.probabilities(predictions.logits[:, np.newaxis])
    parts = choose(predictions, probabilities, count)
    problems: list[Problem] = []
    shown = _explain_rows(
        subject, predictions, folder, sorted({row for rows in parts.values() for row in rows}), problems
    )
    if not shown:
        raise DataProblems(f"None of the {NAMES[subset]} photos can be opened; nothing was written.", problems)
    sampled = _check_sample(subject, predictions, folder, problems) if checks else None
    target = out or run.path / "gallery"
    target.mkdir(parents=True, exist_ok=True)
    page = target / f"gallery_{subset}.html"
    context = _context(subject, predictions, probabilities, subset, parts, shown, sampled, problems)
    text = render("gallery.html.jinja", context)
    write_json(page.with_suffix(".json"), _numbers(predictions, probabilities, parts, sampled))
    write_text(page, text)
    return Written(page, len(shown), tuple(problems), time.monotonic() - started)


def choose(predictions: Predictions, probabilities: Floats, count: int) -> dict[str, list[int]]:
    """Rows for each part of the page: ``wrong`` and ``right``, surest first, and ``uncertain``, least sure first.

    The right ones take turns over the classes, so that the easiest class does not fill the part.

    Args:
        predictions: The table.
        probabilities: Calibrated, (n, classes).
        count: Rows of a part at most.
    """
    confidence = probabilities.max(axis=1)
    named = probabilities.argmax(axis=1)
    paths = predictions.table["path"].to_numpy(dtype=str)
    order = np.lexsort((paths, -confidence))
    right = [row for row in order if named[row] == predictions.labels[row]]
    turns: dict[int, int] = {}
    turn_of = {}
    for row in right:
        turn_of[row] = turns.setdefault(int(named[row]), 0)
        turns[int(named[row])] += 1
    right.sort(key=lambda row: turn_of[row])
    wrong = [row for row in order if named[row] != predictions.labels[row]]
    uncertain = np.lexsort((paths, confidence))
    return {
        "wrong": [int(row) for row in wrong[:count]],
        "uncertain": [int(row) for row in uncertain[:count]],
        "right": [int(row) for row in right[:count]],
    }


def _explain_rows(
    subject: Subject, predictions: Predictions, folder: Path, rows: Sequence[int], problems: list[Problem]
) -> dict[int, _Shown]:
    """Maps and tiles of the given rows that can be opened."""
    row_of = {folder / predictions.table["path"].iloc[row]: row for row in rows}
    shown = {}
    for chunk in chunks(opened(row_of, subject.classifier.image_size, problems)):
        pixels, names = [one.pixels for one in chunk], [one.name for one in chunk]
        numbers = [row_of[one.path] for one in chunk]
        labels = [predictions.classes[predictions.labels[row]] for row in numbers]
        named = explain(subject, pixels, names, checks=False)
        true = explain(subject, pixels, names, labels=labels, checks=False)
        for row, photo, one, other in zip(numbers, chunk, named, true, strict=True):
            differs = other if other.label != one.label else None
            shown[row] = _Shown(one, differs, _tiles(photo.shown, one, differs))
    return shown


def _tiles(photo: Image.Image, named: Explanation, true: Explanation | None) -> list[Tile]:
    drawn = tiles(named, photo, SIDE, whole_trace=False)
    if true is not None:
        drawn.insert(2, tiles(true, photo, SIDE, whole_trace=False)[1])
    return drawn


def _check_sample(
    subject: Subject, predictions: Predictions, folder: Path, problems: list[Problem]
) -> SampleChecks | None:
    """The checks over photos that are drawn whatever the model says of them."""
    number = min(SAMPLE, len(predictions))
    rows = np.sort(np.random.default_rng(SAMPLE_SEED).choice(len(predictions), size=number, replace=False))
    group_of = {folder / predictions.table["path"].iloc[row]: str(predictions.groups[row]) for row in rows}
    unopened: list[Problem] = []
    sampled = check_photos(subject, group_of, unopened)
    problems += [one for one in unopened if one not in problems]
    return sampled


def checks_table(sampled: SampleChecks) -> Table:
    """The games over a sample of photos."""
    return Table(
        name="checks",
        caption=f"Mean probability of the named class over {counted(sampled.photos - sampled.empty, 'photo')}",
        columns=("Check", "In the map’s order", "In random orders", "Gain of the map"),
        rows=tuple(
            (
                Label(
                    {"deletion": "Deletion", "insertion": "Insertion"}[one.game],
                    words.GAME_WORDS[one.game],
                ),
                Value(one.area),
                Value(one.chance_area),
                Value(one.gain.value, "difference", one.gain.interval),
            )
            for one in sampled.games
        ),
        note="Gain: how much lower the probability is in deletion, how much higher in insertion; with a 95 % interval "
        f"over {counted(sampled.groups, 'group')}. Where it holds 0, the maps may be no better than chance.",
    )


def _context(
    subject: Subject,
    predictions: Predictions,
    probabilities: Floats,
    subset: Subset,
    parts: dict[str, list[int]],
    shown: dict[int, _Shown],
    sampled: SampleChecks | None,
    problems: Sequence[Problem],
) -> dict[str, Any]:
    right = int((probabilities.argmax(axis=1) == predictions.labels).sum())
    return {
        "title": f"What {subject.name} looks at",
        "kicker": f"Gallery of the {NAMES[subset]} photos",
        "facts": [
            f"{right:,} of {counted(len(predictions), 'photo')} named rightly",
            f"maps of {subject.place}",
            *subject.on_views,
        ],
        "synthetic": False,
        "parts": {name: _items(predictions, rows, shown) for name, rows in parts.items()},
        "test": subset == "test",
        "checks": None if sampled is None or not sampled.games else checks_table(sampled),
        "randomisation": None if sampled is None else words.randomisation_sentence(sampled.randomisation),
        "warning": sampled is not None and sampled.randomisation.hardly_depends,
        "problems": problems,
        "prunes": subject.classifier.prunes,
        "scales": scales(),
    }


def _items(predictions: Predictions, rows: Iterable[int], shown: dict[int, _Shown]) -> list[dict[str, Any]]:
    return [
        {
            "label": predictions.classes[predictions.labels[row]],
            "named": shown[row].named.answer.top_class,
            "confidence": shown[row].named.answer.confidence,
            "name": shown[row].named.answer.name,
            "tiles": shown[row].tiles,
        }
        for row in rows
        if row in shown
    ]


def _numbers(
    predictions: Predictions, probabilities: Floats, parts: dict[str, list[int]], sampled: SampleChecks | None
) -> dict[str, Any]:
    paths = predictions.table["path"].tolist()
    return {
        "parts": {
            name: [
                {
                    "path": paths[row],
                    "label": predictions.classes[predictions.labels[row]],
                    "probabilities": dict(zip(predictions.classes, probabilities[row].tolist(), strict=True)),
                }
                for row in rows
            ]
            for name, rows in parts.items()
        },
        "checks": None if sampled is None else sampled.to_dict(),
    }
