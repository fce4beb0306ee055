"""A trained model at work: ``predict``."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Annotated, Literal

from cyclopts import App, Parameter

from hcoatnet.errors import ConfigError
from hcoatnet.terminal import err

UNANSWERED = 1
"""Exit code where some photos could not be read; 2 is a mistake of the user, found before any photo was answered."""

CLOSED_PIPE = 141
"""Exit code where the reader of the output went away: what a shell shows for a process that SIGPIPE ended."""


def predict(
    model: Path,
    photos: Annotated[list[str], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    format: Literal["table", "csv", "json", "jsonl"] | None = None,
    out: Path | None = None,
    backend: Literal["auto", "onnx", "torch"] = "auto",
    method: Literal["lac", "aps"] = "lac",
    class_conditional: bool = False,
    level: float = 0.9,
    error_rate: float = 0.1,
) -> None:
    """Answer photos with a bundle or run: probabilities, a prediction set, and whether to leave it to a person.

    A photo that cannot be read gets a row with the error, and the rest go on. Exit code 0: every photo was answered;
    1: some could not be read; 2: a mistake, or no photo at all.

    Args:
        model: A bundle, or a run directory.
        photos: Files, folders (with all below them), quoted patterns such as 'photos/**/*.jpg', or - for paths on
            standard input, one a line.
        format: How to write the answers. [default: the suffix of --out; else table on a terminal, csv elsewhere]
        out: File to write, whole or not at all. [default: standard output]
        backend: onnx or torch; auto takes ONNX Runtime for a bundle where it is installed.
        method: Score of the prediction sets.
        class_conditional: Give each class a threshold of its own.
        level: Coverage that the prediction sets aim at: 0.9 or 0.95.
        error_rate: Share of wrong answers to accept above the abstain threshold: 0.05 or 0.1.
    """
    from hcoatnet.deploy.classifier import load_classifier
    from hcoatnet.deploy.photo_search import find_photos
    from hcoatnet.deploy.prediction import Tally, predict_rows
    from hcoatnet.deploy.prediction_output import WRITERS, table_lines

    _refuse_unknown_options(photos)
    if out is not None and out.is_dir():
        raise ConfigError(f"{out} is a folder. Name a file in it with --out.")
    found = find_photos(photos, sys.stdin.buffer)
    classifier = load_classifier(
        model, backend=backend, method=method, class_conditional=class_conditional, level=level, error_rate=error_rate
    )
    rules, tally = classifier.rules, Tally()
    width = shutil.get_terminal_size().columns
    with closing(predict_rows(classifier, found)) as answers:
        rows = tally.count(answers)
        chosen = format or _usual_format(out)
        _write(table_lines(rows, rules, width) if chosen == "table" else WRITERS[chosen](rows, rules), out)
    err.print(str(tally), markup=False, highlight=False, soft_wrap=True)
    if tally.failed:
        raise SystemExit(UNANSWERED)


def _refuse_unknown_options(photos: list[str]) -> None:
    """Because ``-`` is taken as a photo, a mistyped option is taken as one, too."""
    for one in photos:
        if one.startswith("-") and one != "-" and not os.path.lexists(one):
            raise ConfigError(f"Unknown option: {one}. `hcoatnet predict --help` lists the options.")


def _usual_format(out: Path | None) -> str:
    if out is None:
        return "table" if sys.stdout.isatty() else "csv"
    suffix = out.suffix.lower().removeprefix(".")
    return suffix if suffix in ("json", "jsonl") else "csv"


def _write(lines: Iterator[str], out: Path | None) -> None:
    from hcoatnet.files import replace_file

    if out is not None:
        replace_file(out, lambda temporary: _write_file(lines, temporary))
        return
    try:
        _write_all(lines, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail once more when the interpreter closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED_PIPE) from None


def _write_file(lines: Iterator[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        _write_all(lines, stream)


def _write_all(lines: Iterator[str], stream: IO[str]) -> None:
    for line in lines:
        stream.write(line)


def register(app: App) -> None:
    """Add these commands to the command line."""
    app.command(predict)
