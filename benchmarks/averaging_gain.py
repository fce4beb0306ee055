"""What averaging gains: over views of a photo, and over the seeds of a study.

    python benchmarks/averaging_gain.py STUDY/runs/* --out docs/results/averaging_gain.json
    python benchmarks/averaging_gain.py STUDY/runs/* --subset test --out docs/results/averaging_gain_test.json

Each trained model sees its validation photos in all 8 flips and quarter turns, once; the mean logits over 1, 4 and 8 of
these are what ``--views one``, ``flips`` and ``dihedral`` give. Where a row has several seeds, the mean of their
probabilities is measured beside each. The folds of a row are pooled, and figures are means over its seeds. Nothing is
calibrated. Differences are to one view of one model; intervals are those of a bootstrap over groups, paired. With
``--reference ROW`` every other row is compared with that one, too, both under the same views.

Validation photos chose the checkpoints, as seen once: that flatters one view more than the averages. With ``--subset
test`` every run's test set is opened, once for each kind of views, and each opening stands in the test ledger.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hcoatnet.config import Views
from hcoatnet.data.loading import evaluation_loader
from hcoatnet.data.pixels import Holding
from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.intervals import Resampled, estimate
from hcoatnet.evaluation.predictions import Predictions, build_predictions, with_logits
from hcoatnet.evaluation.resampling import resample
from hcoatnet.evaluation.weighted_metrics import photo_metrics
from hcoatnet.files import sha256_of_file, write_json
from hcoatnet.models.views import MOVES, moved
from hcoatnet.training.inference import predict_logits
from hcoatnet.training.preparation import ledger_of, stored_data, usable_device
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import held_photos, record_test_opening, subset_rows, trained_model

ALL: Views = "dihedral"
METRICS = ("macro_f1", "log_loss", "expected_calibration_error", "brier")
ECE = "expected_calibration_error"


class EveryView(nn.Module):
    """A model's logits for each view of a photo, one after the other."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, S, S) to (B, 8 · classes)."""
        return torch.cat([self.model(moved(photos, move)) for move in MOVES[ALL]], dim=1)


def seen(folder: Path, subset: str) -> dict[Views, Cell]:
    """What the model of a run answers for one of its subsets, under each kind of views."""
    run = RunDirectory(folder)
    config = run.settings()
    classes, device = tuple(run.results()["classes"]), torch.device(usable_device(config))
    prepared = stored_data(config, run)
    rows = subset_rows(prepared, subset)
    photos = held_photos(prepared, rows, Holding.for_evaluation(config.image_size), None)
    if subset == "test":
        for views in MOVES:
            record_test_opening(run, replace(config, views=views), ledger_of(config))
    model = EveryView(trained_model(run, replace(config, views="one"), len(classes), device))
    logits = predict_logits(model, evaluation_loader(photos, config, device), device)
    logits = logits.reshape(len(rows), len(MOVES[ALL]), len(classes))
    digest = sha256_of_file(run.split_file)
    cells: dict[Views, Cell] = {}
    for views, moves in MOVES.items():
        assert moves == MOVES[ALL][: len(moves)]
        table = build_predictions(rows, logits[:, : len(moves)].mean(axis=1), classes)
        place = (config.seed, config.repeat, config.fold)
        cells[views] = Cell(run.name, *place, table, table, (0,) * len(classes), digest, config.sha256)
    return cells


def row_name(run: str) -> str:
    """``<model>-<init>`` of ``<model>-<init>-s<seed>-r<repeat>-f<fold>``."""
    return re.sub(r"-s\d+(-r\d+-f\d+)?$", "", run)


def variants(cells: Sequence[Mapping[Views, Cell]]) -> Iterator[tuple[str, list[Predictions]]]:
    """What is measured of a row: for each kind of views the tables of its seeds and repeats, and of their mean."""
    for views in MOVES:
        arm = Arm("", "", tuple(cell[views] for cell in cells))
        yield views, [one.predictions for one in arm.replicates]
        if len(arm.seeds) > 1:
            yield f"{views}, mean of {len(arm.seeds)} seeds", [mean_of_seeds(arm, repeat) for repeat in arm.repeats]


def mean_of_seeds(arm: Arm, repeat: int) -> Predictions:
    """The mean of the seeds' probabilities for every photo."""
    tables = [one.predictions for one in arm.replicates if one.repeat == repeat]
    return with_logits(tables[0], np.log(np.mean([table.probabilities for table in tables], axis=0)))


def measure(tables: Mapping[str, Sequence[Predictions]], draws: int) -> dict[str, dict[str, Any]]:
    """Each metric of each variant, and how it differs from the first variant."""
    resampling = resample(next(iter(tables.values()))[0], draws, 0)
    of_photo = resampling.groups.of_photo
    found: dict[str, dict[str, Resampled]] = {}
    for name, several in tables.items():
        values = resampling.mean_of([photo_metrics(table, of_photo, ranked=False) for table in several])
        found[name] = {metric: resampling.statistic(values[metric]) for metric in METRICS}
    first = next(iter(found.values()))
    return {
        name: {
            metric: {**described(value, metric), "difference": described(value - first[metric], metric)}
            for metric, value in metrics.items()
        }
        for name, metrics in found.items()
    }


def against(row: Mapping[str, Any], reference: Mapping[str, Any], draws: int) -> dict[str, dict[str, Any]]:
    """How a row differs from another of the same photos in each variant that both have."""
    return {
        name: {
            metric: found["difference"]
            for metric, found in measure({"reference": reference[name], "row": tables}, draws)["row"].items()
        }
        for name, tables in row.items()
        if name in reference
    }


def described(statistic: Resampled, metric: str) -> dict[str, float | None]:
    """Value and interval."""
    made = estimate(statistic, bca=metric != ECE)
    low, high = (None, None) if made.interval is None else (made.interval.low, made.interval.high)
    return {"value": made.value, "low": low, "high": high}


def line(name: str, figures: Mapping[str, Any]) -> str:
    """One variant: each metric, and its difference from one view with the interval."""
    parts = [f"{name:26}"]
    for metric in METRICS:
        parts.append(f"{figures[metric]['value']:.3f} {told(figures[metric]['difference']):27}")
    return " ".join(parts)


def told(change: Mapping[str, float | None]) -> str:
    """A difference with its interval, where it has one."""
    ends = "" if change["low"] is None else f" ({change['low']:+.3f} to {change['high']:+.3f})"
    return f"{change['value']:+.3f}{ends}"


def lines(result: Mapping[str, Any]) -> list[str]:
    """Markdown: macro F1 of each variant of each row, its gain over one view, log loss and calibration error."""
    table = [["model", "views", "macro F1", "gain (95 % interval)", "log loss", "calibration error"], ["---"] * 6]
    for name, row in result["rows"].items():
        for variant, figures in row["figures"].items():
            f1 = figures["macro_f1"]
            gain = "" if f1["difference"]["low"] is None else told(f1["difference"])
            values = [f"{figures[metric]['value']:.3f}" for metric in ("log_loss", ECE)]
            table.append([name, variant, f"{f1['value']:.3f}", gain, *values])
    return [f"| {' | '.join(cells)} |" for cells in table]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run directories")
    parser.add_argument("--subset", choices=("val", "test"), default="val")
    parser.add_argument("--reference", help="row that the others are compared with, such as cnn-scratch")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    arguments = parser.parse_args()
    names = [row_name(RunDirectory(folder).name) for folder in arguments.runs]
    if arguments.reference not in {None, *names}:
        parser.error(f"no row {arguments.reference!r}; the rows are {', '.join(dict.fromkeys(names))}")
    cells: dict[str, list[dict[Views, Cell]]] = {}
    for name, folder in zip(names, arguments.runs, strict=True):
        cells.setdefault(name, []).append(seen(folder, arguments.subset))
    measured = {name: dict(variants(several)) for name, several in cells.items()}
    print(f"{'':26} " + " ".join(f"{metric:32}" for metric in METRICS))
    rows = {}
    for name, tables in measured.items():
        photos = next(iter(tables.values()))[0]
        figures = measure(tables, arguments.draws)
        rows[name] = {
            "runs": len(cells[name]), "photos": len(photos), "groups": len(set(photos.groups)), "figures": figures,
        }  # fmt: skip
        print(f"{name}: {len(cells[name])} runs, {len(photos):,} photos")
        for variant, found in figures.items():
            print(line(variant, found))
        if arguments.reference not in {None, name}:
            rows[name]["against"] = against(tables, measured[arguments.reference], arguments.draws)
            for variant, found in rows[name]["against"].items():
                print(f"{variant:26} macro F1 {told(found['macro_f1'])} from {arguments.reference}")
    result = {"subset": arguments.subset, "draws": arguments.draws, "reference": arguments.reference, "rows": rows}
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
