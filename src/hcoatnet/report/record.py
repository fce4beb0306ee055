"""What the files of finished runs say of how they came about: data, settings, machines, openings of the test."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from hcoatnet.config import TrainConfig, read_yaml
from hcoatnet.data.manifest import MANIFEST_COLUMNS
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import RunError
from hcoatnet.evaluation.ledger import Openings, count_openings, ledger_beside
from hcoatnet.report.words import shown
from hcoatnet.training.run_directory import RunDirectory

SUBSETS = ("train", "val", "test")
CURVES = ["epoch", "train_loss", "val_loss", "val_macro_f1", "val_balanced_accuracy", "learning_rate", "best"]
PLACE = frozenset({"seed", "repeat", "fold"} | {one.name for one in fields(TrainConfig) if not one.metadata["recipe"]})
"""Settings that say where, or on which part, a run happens; all others are its recipe."""


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The files of one finished run, each read when it is first asked for.

    Attributes:
        folder: The run directory.
        metrics: The content of its metrics.json.
    """

    folder: Path
    metrics: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "RunRecord":
        """Read a finished run.

        Raises:
            RunError: It has no metrics.json, so it is not finished, or is no run.
        """
        file = folder / "metrics.json"
        if not file.is_file():
            raise RunError(
                f"{folder} holds no metrics.json: it is not a finished run. Give a directory that `hcoatnet train` or "
                "`hcoatnet study run` made, or finish it with `hcoatnet train --resume`."
            )
        return cls(folder, RunDirectory(folder).results())

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of config.yaml as it stands there, which another version may have written."""
        file = existing(self.folder / "config.yaml")
        content = read_yaml(file)
        kinds = {"data": str, "split": str, "repeat": int, "fold": int}
        if wrong := [name for name, kind in kinds.items() if not isinstance(content.get(name), kind | None)]:
            raise RunError(f"{file} lacks usable {', '.join(wrong)}. Restore it, or train the run again.")
        return content

    @property
    def recipe(self) -> dict[str, str]:
        """Settings that make the configuration, as they are shown."""
        return {name: shown(value) for name, value in self.settings.items() if name not in PLACE}

    @cached_property
    def environment(self) -> dict[str, str]:
        """Machine and versions, as they are shown."""
        existing(self.folder / "environment.json")
        content = RunDirectory(self.folder).environment()
        packages = content.pop("packages", {})
        content.pop("format", None)
        return {name: shown(value) for name, value in {**content, **packages}.items()}

    @cached_property
    def photos(self) -> pd.DataFrame:
        """The manifest's rows with the run's own groups and subsets."""
        split = _read_table(self.folder / "split.csv", ("path", "group", "subset"))
        return self.manifest.drop(columns=["group"]).merge(split, on="path")

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """All rows of the manifest, as text."""
        return _read_table(self.folder / "manifest.csv", MANIFEST_COLUMNS)

    @cached_property
    def history(self) -> pd.DataFrame:
        """The history without rows that a crash tore; of an epoch that was run again, the last row."""
        file = existing(self.folder / "history.csv")
        try:
            rows = pd.read_csv(file, dtype=str, on_bad_lines="skip")
            numbers = pd.DataFrame({name: pd.to_numeric(rows[name], errors="coerce") for name in CURVES}).dropna()
        except (KeyError, ValueError) as error:  # of which pandas' own errors are kinds
            raise RunError(f"{file} is not the history of a training. Restore it, or train the run again.") from error
        return numbers.drop_duplicates("epoch", keep="last").sort_values("epoch")

    @property
    def photo_folder(self) -> Path:
        """Where the run's photos were, as config.yaml has it."""
        data = self.folder / str(self.settings.get("data") or "")
        return data if data.is_dir() else data.parent

    @property
    def ledger(self) -> Path:
        """Where openings of its test set were recorded."""
        places = (self.settings.get(name) for name in ("split", "data"))
        split, data = (self.folder / place if place else None for place in places)
        beside = ledger_beside(split, data)
        return beside if beside.is_file() else self.folder / beside.name


def existing(path: Path) -> Path:
    """The path of a file that a report is made from.

    Raises:
        RunError: It is not there.
    """
    if not path.is_file():
        raise RunError(
            f"{path.parent} holds no {path.name}: the report is made from it. Train or evaluate the run again."
        )
    return path


def openings_of(records: Sequence[RunRecord]) -> Openings | None:
    """How often, and by how many configurations, the test photos of these runs were opened; None without a ledger."""
    ledgers = {record.ledger.resolve() for record in records if record.ledger.is_file()}
    splits = {record.metrics["split_sha256"] for record in records}
    return count_openings(sorted(ledgers), splits) if ledgers else None


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = read_table(existing(path))
    require_columns(table, columns, path)
    return table


def varying_settings(recipes: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Settings that all rows share, and those that differ, by setting and row.

    Args:
        recipes: By name of the row.
    """
    names = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe))
    values = {name: {row: recipe.get(name, "–") for row, recipe in recipes.items()} for name in names}
    common = {name: next(iter(rows.values())) for name, rows in values.items() if len(set(rows.values())) == 1}
    return common, {name: rows for name, rows in values.items() if name not in common}


def environments_of(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Machine and versions over all runs; where they differ, each value with the number of runs that have it."""
    names = list(dict.fromkeys(name for record in records for name in record.environment))
    rows = []
    for name in names:
        counts = Counter(record.environment.get(name, "–") for record in records)
        values = [value if len(counts) == 1 else f"{value} ({n} runs)" for value, n in counts.most_common()]
        rows.append((name, "; ".join(values)))
    return rows
