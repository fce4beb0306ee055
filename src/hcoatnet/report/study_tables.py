"""Tables of what a study trained: its models, the settings in which they differ, and every training."""

from collections.abc import Mapping, Sequence

import numpy as np

from hcoatnet.report.record import RunRecord, varying_settings
from hcoatnet.report.tables import Label, Table, Value
from hcoatnet.report.words import duration

DIGITS = 16


def models_table(rows: Mapping[str, Sequence[RunRecord]], seeds: Sequence[int]) -> Table:
    """Size, number of trainings and training time of every row."""
    return Table(
        name="models",
        caption="Rows of the study",
        columns=("Row", "Model", "Initial weights", "Parameters", "Trainings", "Median epoch kept", "Time"),
        rows=tuple(
            (
                Label(name),
                str(runs[0].metrics["model"]),
                str(runs[0].metrics["init"]),
                Value(runs[0].metrics["parameters"], "count"),
                Value(len(runs), "count"),
                Value(float(np.median([run.metrics["best_epoch"] for run in runs])), "number"),
                duration(sum(float(run.metrics["training_seconds"]) for run in runs)),
            )
            for name, runs in rows.items()
        ),
        note=f"Seeds: {', '.join(map(str, seeds))}. Time: of all trainings of the row, without evaluation.",
    )


def varying_table(recipes: Mapping[str, Mapping[str, str]]) -> Table:
    """Settings that differ between rows, the model's own name left out."""
    _, varying = varying_settings(recipes)
    return Table(
        name="settings_that_differ",
        caption="Settings that differ between rows",
        columns=("Setting", *recipes),
        rows=tuple(
            (Label(name), *(values[row] for row in recipes)) for name, values in varying.items() if name != "model"
        ),
    )


def runs_table(rows: Mapping[str, Sequence[RunRecord]]) -> Table:
    """Every training with its place, the epoch kept, its time and its digests."""
    return Table(
        name="runs",
        caption=f"Every training; the first {DIGITS} digits of each SHA-256",
        columns=("Run", "Seed", "Repeat", "Fold", "Epoch kept", "Time", "Settings", "Split", "Manifest", "Weights"),
        rows=tuple(
            (
                Label(run.folder.name),
                str(run.metrics.get("seed", "–")),
                str(run.settings.get("repeat", 0)),
                str(run.settings.get("fold", 0)),
                Value(run.metrics["best_epoch"], "count"),
                duration(run.metrics["training_seconds"]),
                *(str(run.metrics[f"{name}_sha256"])[:DIGITS] for name in ("config", "split", "manifest", "weights")),
            )
            for runs in rows.values()
            for run in runs
        ),
    )
