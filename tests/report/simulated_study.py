"""Simulated evidence: photos of a few patients, models of chosen strength, and the directories they would leave."""

import json
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.metrics import summarise
from hcoatnet.evaluation.predictions import Predictions, build_predictions, write_predictions
from hcoatnet.files import sha256_of_file

CLASSES = ("ichthyosis & co", "<script>alert(1)</script>", "plain_skin 100%")
HISTORY = (
    "epoch,train_loss,val_loss,val_accuracy,val_balanced_accuracy,val_macro_f1,"
    "learning_rate,photos_per_second,seconds,best"
)


def simulate_photos(
    n: int = 180, classes: Sequence[str] = CLASSES, folds: int = 3, seed: int = 0, shares: Sequence[float] | None = None
) -> pd.DataFrame:
    """A manifest with a fold for every photo: patients have one or two photos of one class, and lie in one fold."""
    rng = np.random.default_rng(seed)
    shares = shares or [0.5, 0.35, *[0.15 / (len(classes) - 2)] * (len(classes) - 2)]
    patients = np.sort(rng.integers(0, int(n * 0.7), n))
    label_of = rng.choice(len(classes), size=n, p=shares)
    fold_of = rng.permutation(n) % folds
    return pd.DataFrame(
        {
            "path": [f"photos/{number:04d}.png" for number in range(n)],
            "label": [classes[label_of[patient]] for patient in patients],
            "group": [f"patient {patient}" for patient in patients],
            "sha256": [f"{number:064x}" for number in range(n)],
            "width": 48,
            "height": 48,
            "sex": [("female", "male", "")[patient % 3] for patient in patients],
            "fold": fold_of[patients],
        }
    )


def simulate_predictions(
    photos: pd.DataFrame, subset: str, strength: float, seed: int, classes: Sequence[str] = CLASSES, scale: float = 2.0
) -> Predictions:
    """Logits that point to the true class as far as ``strength`` says, too sure of themselves by ``scale``."""
    rng = np.random.default_rng(seed)
    labels = np.array([list(classes).index(label) for label in photos["label"]])
    logits = scale * (rng.normal(size=(len(photos), len(classes))) + strength * np.eye(len(classes))[labels])
    rows = photos[["path", "group", "label", "sex"]].assign(subset=subset)
    return build_predictions(rows[["path", "group", "label", "subset", "sex"]], logits.round(6), classes)


def simulate_arm(
    name: str,
    photos: pd.DataFrame,
    strength: float,
    init: str = "scratch",
    seeds: Sequence[int] = (1,),
    classes: Sequence[str] = CLASSES,
) -> Arm:
    """All cells of one model; the folds are those of ``photos``, and with two folds or fewer it is a hold-out split."""
    folds = int(photos["fold"].max()) + 1
    hold_out = folds <= 2
    cells = []
    for seed in seeds:
        for fold in [0] if hold_out else range(folds):
            in_test, in_val = photos["fold"] == fold, photos["fold"] == (fold + 1) % folds
            train = photos[~in_test & ~in_val]
            number = zlib.crc32(f"{name}{seed}{fold}".encode())
            cells.append(
                Cell(
                    run=f"{name}-{init}-s{seed}-r0-f{fold}",
                    seed=seed,
                    repeat=0,
                    fold=fold,
                    val=simulate_predictions(photos[in_val], "val", strength, number, classes),
                    test=simulate_predictions(photos[in_test], "test", strength, number + 1, classes),
                    train_counts=tuple(max(1, int((train["label"] == one).sum())) for one in classes),
                    split_sha256=f"{fold + 1:064x}",
                    config_sha256=f"{zlib.crc32(name.encode()):064x}",
                )
            )
    return Arm(name, init, tuple(cells))


def write_run(folder: Path, arm: Arm, cell: Cell, photos: pd.DataFrame, **changes: Any) -> Path:
    """The directory that training a cell would leave, without its weights."""
    run = folder / cell.run
    run.mkdir(parents=True)
    subset = np.full(len(photos), "train", dtype=object)
    for name in ("val", "test"):
        subset[photos["path"].isin(getattr(cell, name).table["path"])] = name
    manifest = photos.drop(columns="fold")
    manifest.to_csv(run / "manifest.csv", index=False)
    photos[["path", "group"]].assign(subset=subset).to_csv(run / "split.csv", index=False)
    up = "../../.." if folder.name == "runs" else ".."
    settings = {
        "protocol": "strict",
        "model": arm.name,
        "init": arm.init,
        "data": f"{up}/manifest.csv",
        "split": f"{up}/folds.csv",
        "repeat": cell.repeat,
        "fold": cell.fold,
        "image_size": 64,
        "epochs": 6,
        "lr": 0.001 if arm.name == "alpha" else 0.002,
        "seed": cell.seed,
    }
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    environment = {
        "format": 1,
        "hcoatnet": "0.1.0",
        "python": "3.11.9",
        "platform": "Linux x86_64",
        "processor": "Some CPU",
        "cores": 2,
        "threads": 2,
        "device": "cpu",
        "packages": {"torch": "2.9.1", "numpy": "2.3.0"},
    }
    (run / "environment.json").write_text(json.dumps(environment))
    (run / "history.csv").write_text("\n".join([HISTORY, *_history(cell)]) + "\n")
    for name in ("val", "test"):
        write_predictions(getattr(cell, name), run / f"predictions_{name}.csv")
    metrics = {
        "format": 1,
        "model": arm.name,
        "init": arm.init,
        "protocol": "strict",
        "parameters": 242181,
        "classes": list(arm.classes),
        "best_epoch": 4,
        "epochs": 6,
        "monitor": "macro_f1",
        "seed": cell.seed,
        "config_sha256": cell.config_sha256,
        "manifest_sha256": "a" * 64,
        "split_sha256": sha256_of_file(run / "split.csv"),
        "weights_sha256": f"{zlib.crc32(cell.run.encode()):064x}",
        "training_seconds": 61.2,
        "subsets": {"val": summarise(cell.val), "test": summarise(cell.test)},
        "test_ledger": {"openings": 1, "configurations": 1},
        "notes": ["12 photos <i>enlarged</i>"],
        **changes,
    }
    (run / "metrics.json").write_text(json.dumps(metrics))
    return run


def write_study(folder: Path, arms: Sequence[Arm], photos: pd.DataFrame, ledger: bool = True) -> Path:
    """A finished study directory, its manifest, split file and test ledger beside it."""
    study = folder / "study"
    rows = ["cell,model,init,seed,repeat,fold,config_sha256,run"]
    lines = []
    for arm in arms:
        for cell in arm.cells:
            run = write_run(study / "runs", arm, cell, photos)
            values = (arm.name, arm.init, cell.seed, cell.repeat, cell.fold, cell.config_sha256, f"runs/{cell.run}")
            rows.append(",".join(map(str, (cell.run, *values))))
            lines.append(
                {
                    "time": "2025-01-01T00:00:00+00:00",
                    "run": cell.run,
                    "weights_sha256": "w",
                    "split_sha256": sha256_of_file(run / "split.csv"),
                    "config_sha256": cell.config_sha256,
                    "study": "study",
                }
            )
    (study / "plan.csv").write_text("\n".join(rows) + "\n")
    photos.drop(columns="fold").to_csv(folder / "manifest.csv", index=False)
    photos.assign(repeat=0)[["path", "group", "repeat", "fold"]].to_csv(folder / "folds.csv", index=False)
    if ledger:
        (folder / "test_ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return study


def draw_photos(folder: Path, photos: pd.DataFrame) -> None:
    """The photos themselves, each of one colour."""
    for number, path in enumerate(photos["path"]):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 48), ((37 * number) % 256, 120, 150)).save(folder / path)


@cache
def three_arms() -> list[Arm]:
    """A strong, a middling and a weak model of one set of photos, three folds and two seeds each."""
    strengths = {"alpha": 2.0, "beta_b": 1.6, "gamma": 0.3}
    return [simulate_arm(name, simulate_photos(), strength, seeds=(1, 2)) for name, strength in strengths.items()]


def _history(cell: Cell) -> list[str]:
    rng = np.random.default_rng(zlib.crc32(cell.run.encode()))
    rows = []
    best = -1.0
    for epoch in range(1, 7):
        score = 0.6 * (1 - 0.6**epoch) + rng.normal(0, 0.03)
        improved = score > best
        best = max(best, score)
        rows.append(
            f"{epoch},{1.2 * 0.8**epoch:.4f},{1.2 * 0.85**epoch + 0.1:.4f},{score + 0.1:.4f},{score + 0.02:.4f},"
            f"{score:.4f},{0.001 * (1 - epoch / 7):.6f},50,2,{int(improved)}"
        )
    return rows
