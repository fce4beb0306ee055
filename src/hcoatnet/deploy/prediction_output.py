"""Rows of a prediction as a table to look at, or as CSV or JSON, each a stream of text."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from rich.cells import cell_len, set_cell_size

from hcoatnet.deploy.answers import Rules
from hcoatnet.deploy.prediction import Row
from hcoatnet.files import csv_line

NOTICE = "Research software, not a diagnostic device."
LEFT, NO_CLASS = "to a person", "yes, no class"
LONGEST_CLASS, SHORTEST_NAME = 16, 16
"""Widths in the table, in characters."""
GAP = "  "


def csv_lines(rows: Iterable[Row], rules: Rules) -> Iterator[str]:
    """CSV: ``path,top_class,confidence,prediction_set,abstain,reason,error``, then ``p_<class>`` of every class.

    The names in a prediction set are joined by ``|``; a set of no class is ``{}``, and no set at all is empty.
    """
    columns = ["path", "top_class", "confidence", "prediction_set", "abstain", "reason", "error"]
    yield csv_line([*columns, *(f"p_{name}" for name in rules.classes)]) + "\n"
    for row in rows:
        if row.answer is None:
            values: list[Any] = ["", "", "", "", "", _error(row), *("" for _ in rules.classes)]
        else:
            one = row.answer
            chosen = "" if one.prediction_set is None else "|".join(one.prediction_set) or "{}"
            left = "yes" if one.abstain else "no"
            values = [one.top_class, one.confidence, chosen, left, one.reason or "", "", *one.probabilities.values()]
        yield csv_line([row.name, *values]) + "\n"


def json_lines(rows: Iterable[Row], rules: Rules) -> Iterator[str]:
    """One JSON object a line: an answer without its traces, and ``error``, which is null or says what is wrong."""
    for row in rows:
        yield json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n"


def json_document(rows: Iterable[Row], rules: Rules) -> Iterator[str]:
    """One JSON object with a ``notice`` and a list of ``answers``, each as in :func:`json_lines`."""
    yield f'{{"notice": {json.dumps(NOTICE)}, "answers": ['
    separator = "\n"
    for line in json_lines(rows, rules):
        yield separator + line.rstrip("\n")
        separator = ",\n"
    yield "\n]}\n"


def table_lines(rows: Iterable[Row], rules: Rules, width: int) -> Iterator[str]:
    """Lines of fixed columns that fit a terminal of ``width`` characters."""
    of_class = min(LONGEST_CLASS, max(map(cell_len, [*rules.classes, "class"])))
    left_over = width - of_class - len("prob.") - len(NO_CLASS) - 4 * len(GAP)
    of_set = min(cell_len(", ".join(rules.classes)), left_over // 2, left_over - SHORTEST_NAME)
    of_set = max(len("prediction set"), of_set)
    of_name = max(SHORTEST_NAME, left_over - of_set)
    widths = [of_name, of_class, len("prob."), of_set, len(NO_CLASS)]
    for remark in (NOTICE, *_remarks(rules)):
        yield from (line + "\n" for line in wrap(remark, width))
    yield "\n"
    yield _columns(["photo", "class", "prob.", "prediction set", LEFT], widths)
    for row in rows:
        name = _ending(_visible(row.name), of_name)
        if row.answer is None:
            found = row.problem.found if row.problem else ""
            yield _cut(f"{_padded(name, of_name)}{GAP}no answer: {_visible(found)}", width) + "\n"
        else:
            one = row.answer
            chosen = _set_words(one.prediction_set, of_set)
            left = "" if not one.abstain else "yes" if one.prediction_set != () else NO_CLASS
            yield _columns([name, _visible(one.top_class), f"{one.confidence:.2f}", chosen, left], widths)


WRITERS: Mapping[str, Callable[[Iterable[Row], Rules], Iterator[str]]] = {
    "csv": csv_lines,
    "json": json_document,
    "jsonl": json_lines,
}


def _plain(row: Row) -> dict[str, Any]:
    if row.answer is None:
        return {"name": row.name, "error": None if row.problem is None else asdict(row.problem)}
    content = row.answer.to_dict()
    del content["traces"]
    return {**content, "error": None}


def _error(row: Row) -> str:
    return "" if row.problem is None else f"{row.problem.found}. {row.problem.fix}"


def _remarks(rules: Rules) -> Iterator[str]:
    """What holds for every row, said once."""
    if rules.thresholds is None:
        yield f"No prediction sets: {rules.no_sets_because}"
    else:
        yield f"Prediction sets aim to hold the true class of {rules.level:.0%} of photos."
    if rules.abstain_below is None:
        yield (
            f"Every photo is left to a person: on the calibration photos no confidence kept wrong answers at "
            f"{rules.error_rate:.0%} or less."
        )
    else:
        yield f"Below a probability of {rules.abstain_below:.2f} a photo is left to a person."


def _set_words(chosen: tuple[str, ...] | None, width: int) -> str:
    """As many names of a set as fit, and how many more there are."""
    if chosen is None:
        return "–"
    if not chosen:
        return "none"
    for shown in range(len(chosen), 0, -1):
        more = len(chosen) - shown
        text = ", ".join(map(_visible, chosen[:shown])) + (f", +{more}" if more else "")
        if cell_len(text) <= width:
            return text
    return f"{len(chosen)} classes"


def _columns(texts: list[str], widths: list[int]) -> str:
    cells = [_padded(_cut(text, width), width) for text, width in zip(texts, widths, strict=True)]
    return GAP.join(cells).rstrip() + "\n"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def _ending(text: str, width: int) -> str:
    """The end of a path that is too long, which tells photos apart better than its beginning."""
    if cell_len(text) <= width:
        return text
    end = text[1 - width :]
    while cell_len(end) > width - 1:
        end = end[1:]
    return "…" + end


def _visible(text: str) -> str:
    """Text without line ends and control characters, which could make a terminal do things."""
    return "".join(character if character.isprintable() else "�" for character in text)
