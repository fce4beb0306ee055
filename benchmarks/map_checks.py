"""Can class-activation maps be believed? Deletion, insertion and randomisation over validation photos of several runs.

    python benchmarks/map_checks.py STUDY/runs/*-s42-r0-f0 --photos 50 --out docs/results/map_checks.json

For each run, the same photos are drawn from its validation set, whatever the model says of them; the map is that of the
class that it names. See hcoatnet.explain.faithfulness and hcoatnet.explain.randomisation for what is measured. For a
model that prunes, the map before the cuts is measured beside the one that is shown.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hcoatnet.evaluation.predictions import read_predictions
from hcoatnet.explain.sampling import check_photos
from hcoatnet.explain.subject import load_subject
from hcoatnet.files import write_json
from hcoatnet.models.activation_maps import ActivationPlace, to_grid
from hcoatnet.training.preparation import stored_data
from hcoatnet.training.run_directory import RunDirectory


class Before(torch.nn.Module):
    """Hands on what it gets, so that what goes into a module can be looked at like what comes out of one."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens


def before_cuts(model: torch.nn.Module) -> torch.nn.Module:
    """The model with its map taken where the cuts begin."""
    gates = model.hse
    before = Before()
    gates.before = before
    forward = gates.forward
    gates.forward = lambda tokens, norm, head: forward(before(tokens), norm, head)
    model.activation_place = lambda: ActivationPlace(before, to_grid, "all tokens, before the first cut")
    return model


def measure(run_folder: Path, photos: int) -> dict[str, dict[str, object]]:
    run = RunDirectory(run_folder)
    settings = run.settings()
    table = read_predictions(run.predictions_file("val")).table
    folder = stored_data(settings, run).manifest.folder
    rows = np.random.default_rng(0).choice(len(table), size=min(photos, len(table)), replace=False)
    group_of = {folder / table["path"].iloc[row]: str(table["group"].iloc[row]) for row in sorted(rows)}
    subject = load_subject(run_folder)
    facts = {"run": run.name, "image_size": settings.image_size}
    checks = check_photos(subject, group_of, [])
    found = {settings.model: {**facts, "place": subject.place, **checks.to_dict()}}
    if hasattr(subject.models[0], "hse"):
        untrained = subject.untrained
        other = replace(
            subject,
            models=tuple(before_cuts(model) for model in subject.models),
            untrained=lambda draw: before_cuts(untrained(draw)),
        )
        checks = check_photos(other, group_of, [])
        found[f"{settings.model}, before the cuts"] = {**facts, "place": other.place, **checks.to_dict()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    models: dict[str, dict[str, object]] = {}
    for run in arguments.runs:
        for name, found in measure(run, arguments.photos).items():
            models[name] = found
            print(name, found, flush=True)
    write_json(arguments.out, {"models": models})


if __name__ == "__main__":
    main()
