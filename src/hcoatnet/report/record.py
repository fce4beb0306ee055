"""What the files of finished runs say of how they came about: data, settings, machines, openings of the test."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hcoatnet.errors import RunError
from hcoatnet.evaluation.ledger import Openings, count_openings, ledger_beside
from hcoatnet.report.words import shown

SUBSETS = ("train", "val", "test")
CURVES = ["epoch", "train_loss", "val_loss", "val_macro_f1", "val_balanced_accuracy", "learning_rate", "best"]
PLACE = frozenset(
    {"seed", "repeat", "fold", "data", "split", "out", "resume", "device", "workers", "evaluate_test"}
    | {"cache", "cache_folder", "cache_limit"}
)
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
        return cls(folder, json.loads(file.read_text(encoding="utf-8")))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of config.yaml."""
        content: dict[str, Any] = yaml.safe_load(existing(self.folder / "config.yaml").read_text(encoding="utf-8"))
        return content

    @property
    def recipe(self) -> dict[str, str]:
        """Settings that make the configuration, as they are shown."""
        return {name: shown(value) for name, value in self.settings.items() if name not in PLACE}

    @cached_property
    def environment(self) -> dict[str, str]:
        """Machine and versions, as they are shown."""
        content = json.loads(existing(self.folder / "environment.json").read_text(encoding="utf-8"))
        packages = content.pop("packages", {})
        content.pop("format", None)
        return {name: shown(value) for name, value in {**content, **packages}.items()}

    @cached_property
    def photos(self) -> pd.DataFrame:
        """The manifest's rows with the run's own groups and subsets."""
        manifest, split = (read_table(self.folder / name) for name in ("manifest.csv", "split.csv"))
        return manifest.drop(columns=["group"], errors="ignore").merge(split, on="path")

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """All rows of the manifest, as text."""
        return read_table(self.folder / "manifest.csv")

    @cached_property
    def history(self) -> pd.DataFrame:
        """The history without rows that a crash tore; of an epoch that was run again, the last row."""
        rows = pd.read_csv(existing(self.folder / "history.csv"), dtype=str, on_bad_lines="skip")
        numbers = pd.DataFrame({name: pd.to_numeric(rows[name], errors="coerce") for name in CURVES}).dropna()
        return numbers.drop_duplicates("epoch", keep="last").sort_values("epoch")

    @property
    def photo_folder(self) -> Path:
        """Where the run's photos were, as config.yaml has it."""
        data = self.folder / str(self.settings.get("data") or "")
        return data if data.is_dir() else data.parent

    @property
    def ledger(self) -> Path:
        """Where openings of its test set were recorded."""
        split, data = (self.settings.get(name) for name in ("split", "data"))
        beside = ledger_beside(split and self.folder / split, data and self.folder / data)
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


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file of a run as text; empty cells are empty texts."""
    return pd.read_csv(existing(path), dtype=str, keep_default_na=False)


def openings_of(records: Sequence[RunRecord]) -> Openings | None:
    """How often, and by how many configurations, the test photos of these runs were opened; None without a ledger."""
    ledgers = {record.ledger.resolve() for record in records if record.ledger.is_file()}
    splits = {record.metrics["split_sha256"] for record in records}
    return count_openings(sorted(ledgers), splits) if ledgers else None


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
