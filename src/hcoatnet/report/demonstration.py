"""The page of ``hcoatnet demo``: two models on one honest split, and one of them on a split that leaks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hcoatnet.data.manifest import Manifest
from hcoatnet.evaluation.predictions import read_predictions
from hcoatnet.files import write_text
from hcoatnet.report.page import render
from hcoatnet.report.thumbnails import thumbnail

SAMPLES = 6


@dataclass(frozen=True)
class Trained:
    """One run of the demonstration.

    Attributes:
        run: Name of its directory.
        model: Name of the model.
        accuracy: On the test photos.
        balanced_accuracy: Likewise.
        macro_f1: Likewise.
        photos: Number of test photos.
        seen_patients: Test photos that show a patient of whom other photos stand in the training or validation set.
        majority: Share of the most common class among the test photos.
    """

    run: str
    model: str
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    photos: int
    seen_patients: int
    majority: float

    @classmethod
    def of(cls, run: Path) -> "Trained":
        """Read it from a finished run whose manifest names patients."""
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        test: dict[str, Any] = metrics["subsets"]["test"]
        split = pd.read_csv(run / "split.csv", dtype=str).merge(pd.read_csv(run / "manifest.csv", dtype=str), on="path")
        seen = set(split.loc[split["subset"] != "test", "patient_id"])
        return cls(
            run=run.name,
            model=metrics["model"],
            accuracy=test["accuracy"]["value"],
            balanced_accuracy=test["balanced_accuracy"]["value"],
            macro_f1=test["macro_f1"]["value"],
            photos=test["n"],
            seen_patients=int(read_predictions(run / "predictions_test.csv").table["patient_id"].isin(seen).sum()),
            majority=max(row["support"] for row in test["per_class"].values()) / test["n"],
        )


def write_demo_page(folder: Path, manifest: Manifest, proposed: Trained, honest: Trained, leaky: Trained) -> Path:
    """Write ``index.html`` into the demonstration's folder, beside its runs.

    Args:
        folder: The demonstration's folder.
        manifest: The drawn photos.
        proposed: H-CoAtNet on the split by patient.
        honest: The baseline on the split by patient.
        leaky: The baseline on the split by file.
    """
    context = {
        "classes": [(name, _samples(manifest, name)) for name in manifest.classes],
        "photos": len(manifest),
        "patients": manifest.table["group"].nunique(),
        "honest": honest,
        "proposed": proposed,
        "leaky": leaky,
    }
    page = folder / "index.html"
    write_text(page, render("demo.html.jinja", context))
    return page


def _samples(manifest: Manifest, label: str) -> list[str]:
    """The first photo of each of the first few patients of a class, as data URIs."""
    rows = manifest.table[manifest.table["label"] == label].drop_duplicates("group").head(SAMPLES)
    return [thumbnail(manifest.folder / path, side=96) or "" for path in rows["path"]]
