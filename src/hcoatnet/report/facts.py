"""What the software knows of a study or run, each fact with the file that it was read from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hcoatnet.evaluation.comparison import Comparison
from hcoatnet.evaluation.intervals import Estimate
from hcoatnet.evaluation.ledger import Openings
from hcoatnet.report.comparison_tables import NAMES, gap_sentences
from hcoatnet.report.examination import Examination
from hcoatnet.report.findings import design, init_words
from hcoatnet.report.ranking import ranked_rows
from hcoatnet.report.record import RunRecord, environments_of, varying_settings
from hcoatnet.report.tables import score, written
from hcoatnet.report.words import counted, duration, listed, shown

RESERVED = ("path", "label", "group", "sha256", "width", "height", "subset")
AUGMENTATION = (
    "crop_scale",
    "horizontal_flip",
    "vertical_flip",
    "rotation",
    "trivial_augment",
    "random_erasing",
    "mixup",
    "cutmix",
)


@dataclass(frozen=True)
class Fact:
    """A statement and where it comes from.

    Attributes:
        value: What is known.
        source: The file that says so.
    """

    value: str
    source: str


@dataclass(frozen=True, eq=False)
class Subject:
    """What a report is about.

    Attributes:
        records: Runs by row: the name of a model, or of a variant of one, with its initial weights where there are two.
        examinations: One for each kind of initial weights; none where nothing was tested.
        openings: How often the test photos were opened; None where no ledger is there.
    """

    records: Mapping[str, Sequence[RunRecord]]
    examinations: tuple[Examination, ...]
    openings: Openings | None

    @property
    def runs(self) -> list[RunRecord]:
        """All runs."""
        return [record for several in self.records.values() for record in several]

    @property
    def first(self) -> RunRecord:
        """A run that stands for all where they agree."""
        return self.runs[0]


def facts_of(subject: Subject) -> dict[str, Fact]:
    """All that is known, by the keys that the model card and the checklist ask for."""
    return {**_data_facts(subject), **_model_facts(subject), **_result_facts(subject), **_machine_facts(subject)}


def openings_sentence(openings: Openings) -> str:
    """How often the test photos were opened, without a judgement."""
    n, configurations = openings.openings, openings.configurations
    return f"{counted(n, 'opening')} by {counted(configurations, 'configuration')}"


def _data_facts(subject: Subject) -> dict[str, Fact]:
    manifest, photos = subject.first.manifest, subject.first.photos
    per_class = [f"{name} {(photos['label'] == name).sum():,}" for name in subject.first.metrics["classes"]]
    copies = int(manifest["sha256"].duplicated().sum()) if "sha256" in manifest else 0
    left_out = len(manifest) - len(photos)
    facts = {
        "photos": Fact(
            f"{counted(len(photos), 'photo')} of {counted(photos['group'].nunique(), 'group')}", "split.csv"
        ),
        "classes": Fact(", ".join(per_class), "manifest.csv"),
        "left_out": Fact(
            f"{counted(left_out, 'photo')} of the manifest not in the split"
            if left_out
            else "no photo of the manifest",
            "split.csv",
        ),
        "copies": Fact(
            f"{counted(copies, 'photo')} with the same bytes as another; copies share a group"
            if copies
            else "no two photos have the same bytes",
            "manifest.csv",
        ),
        "split": Fact(_split_words(subject, photos), "split.csv"),
        "size": Fact(", ".join(sorted({shown(run.settings.get("image_size")) for run in subject.runs})), "config.yaml"),
    }
    if columns := [str(name) for name in manifest.columns if name not in RESERVED]:
        recorded = [f"{name}: {(manifest[name] != '').sum():,} of {len(manifest):,}" for name in columns]
        facts["recorded"] = Fact("; ".join(recorded), "manifest.csv")
    return facts


def _split_words(subject: Subject, photos: pd.DataFrame) -> str:
    cells = {(run.settings.get("repeat", 0), run.settings.get("fold", 0)) for run in subject.runs}
    counts = photos["subset"].value_counts()
    parts = " / ".join(f"{counts.get(name, 0):,}" for name in ("train", "val", "test"))
    kind = "one split" if len(cells) == 1 else f"{len(cells)} splits (repeats and folds), the first"
    return f"{kind} with {parts} photos for training, validation and test; no group stands in two of them"


def _model_facts(subject: Subject) -> dict[str, Fact]:
    recipes = {name: several[0].recipe for name, several in subject.records.items()}
    common, varying = varying_settings(recipes)
    parameters = {name: several[0].metrics["parameters"] for name, several in subject.records.items()}
    inits = sorted({str(run.metrics["init"]) for run in subject.runs})
    monitors = sorted({str(run.metrics["monitor"]).replace("_", " ").replace("f1", "F1") for run in subject.runs})
    seeds = sorted({run.metrics["seed"] for run in subject.runs if "seed" in run.metrics})
    used = [f"{name} {common[name]}" for name in AUGMENTATION if common.get(name, "0.0") not in ("0.0", "false")]
    return {
        "models": Fact("; ".join(f"{name}, {n:,} parameters" for name, n in parameters.items()), "metrics.json"),
        "init": Fact(listed([init_words(init) for init in inits]), "config.yaml"),
        "settings": Fact(
            f"{len(common)} settings shared by all"
            + (f"; {listed(list(varying))} differ between rows" if varying and len(recipes) > 1 else ""),
            "config.yaml",
        ),
        "augmentation": Fact(", ".join(used) or "none, or different between rows", "config.yaml"),
        "selection": Fact(
            f"the epoch with the best validation {listed(monitors)}",
            "config.yaml",
        ),
        "seeds": Fact(listed([str(seed) for seed in seeds]) if seeds else "not recorded", "metrics.json"),
    }


def _result_facts(subject: Subject) -> dict[str, Fact]:
    table = "predictions_test.csv"
    facts: dict[str, Fact] = {}
    if subject.openings is not None:
        facts["openings"] = Fact(openings_sentence(subject.openings), "test_ledger.jsonl")
    if not subject.examinations:
        return facts
    first = subject.examinations[0]
    comparisons = [one.comparison for one in subject.examinations]
    facts |= {
        "design": Fact(" ".join(design(one.comparison, one.arms[0]) for one in subject.examinations), "metrics.json"),
        "metrics": Fact(", ".join(NAMES.values()), table),
        "performance": Fact("; ".join(_performance(one) for one in comparisons), table),
        "intervals": Fact(
            f"{100 * first.comparison.level:.3g} % intervals from {first.comparison.replicates:,} bootstrap draws of "
            "whole groups",
            table,
        ),
        "floor": Fact("a row that always names the most common class", table),
        "few": Fact(listed(first.comparison.few) if first.comparison.few else "no class has fewer than 30", table),
        "calibration": Fact("; ".join(_calibration(one) for one in subject.examinations), table),
        "failures": Fact("the errors that each model is surest of are shown and listed", table),
    }
    differences = [one for comparison in comparisons for one in comparison.differences]
    if detectable := [one.detectable for one in differences]:
        facts["detectable"] = Fact(
            f"smallest detectable difference in macro F1: {min(detectable):.3f} to {max(detectable):.3f}", table
        )
    if first.subgroups:
        facts["subgroups"] = Fact(
            " ".join(
                f"By {column}: {' '.join(gap_sentences(found[first.reference.name]))}"
                for column, found in first.subgroups.items()
            ),
            table,
        )
    return facts


def _performance(comparison: Comparison) -> str:
    rows = [f"{row.name} {_macro_f1(row.metrics['macro_f1'])}" for row in ranked_rows(comparison)]
    return f"macro F1 {', '.join(rows)}"


def _macro_f1(estimate: Estimate) -> str:
    value = score(estimate)
    return value.text + (f" ({value.interval_text})" if value.interval_text else "")


def _calibration(examination: Examination) -> str:
    rows = [
        f"{name} {written(one.before.ece.value)} before, {written(one.after.ece.value)} after"
        for name, one in examination.calibration.items()
    ]
    return f"calibration error by temperature scaling: {', '.join(rows)}"


def _machine_facts(subject: Subject) -> dict[str, Fact]:
    environment = dict(environments_of(subject.runs))
    packages = [f"{name} {environment[name]}" for name in ("torch", "timm", "numpy") if name in environment]
    seconds = sum(float(run.metrics["training_seconds"]) for run in subject.runs)
    file = "environment.json"
    return {
        "software": Fact(
            f"hcoatnet {environment.get('hcoatnet', 'not recorded')} (Apache-2.0), Python "
            f"{environment.get('python', 'not recorded')}" + "".join(f", {one}" for one in packages),
            file,
        ),
        "hardware": Fact(
            f"{environment.get('processor', 'not recorded')}, {environment.get('cores', '?')} cores, device "
            f"{environment.get('device', 'not recorded')}",
            file,
        ),
        "time": Fact(f"{duration(seconds)} of training in {counted(len(subject.runs), 'run')}", "metrics.json"),
        "hashes": Fact("SHA-256 of photos, manifest, split, settings and weights", "metrics.json"),
        "again": Fact("`hcoatnet train --config config.yaml` repeats a run", "config.yaml"),
    }
