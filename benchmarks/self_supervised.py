"""Does a start by self-supervision on a fold's own training photos beat a random one, at the same total compute?

    python benchmarks/self_supervised.py DATA SPLIT --work FOLDER --out docs/results/pad_ufes_20/self_supervised.json

Three arms a model and fold, all with the protocol ``strict``, scored by macro F1 on the validation photos; no test set
is opened:

- ``scratch``: the protocol as it is.
- ``half``: half its epochs.
- ``self_supervised``: as ``half``, from weights that VICReg (Bardes, Ponce and LeCun, ICLR 2022) learned in as many
  epochs on the photos of the training part alone. Two crops of a photo are to have features alike, whose components
  vary over photos (a hinge at a deviation of one) and do not correlate. Crops shrunk to 2/3 of the side make the two
  cost about as much as one photo of the protocol.

A finished part is kept in ``--work``: the script can be stopped and started again.
"""

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import hcoatnet, measured
from rich.console import Console
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from hcoatnet.config import TrainConfig, resolve_config
from hcoatnet.data.pixels import Holding
from hcoatnet.data.tables import read_table
from hcoatnet.evaluation.significance import corrected_t
from hcoatnet.files import write_json
from hcoatnet.seeding import seed_everything
from hcoatnet.training.journal import Journal
from hcoatnet.training.matrix_products import matrix_products
from hcoatnet.training.preparation import Prepared, build_cache, prepare_data
from hcoatnet.training.run import build_model
from hcoatnet.training.scoring import held_photos, subset_rows

ARMS = ("scratch", "half", "self_supervised")
PROJECTED = 512
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0


def vicreg_loss(one: Tensor, other: Tensor) -> Tensor:
    """VICReg's loss for the projections (N, D) of two views of N photos.

    Against the paper's equation 6 the variance has half the weight, and the first term is a mean over components, too.
    """
    spread = sum(functional.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean() for z in (one, other)) / 2
    return (
        INVARIANCE * functional.mse_loss(one, other)
        + VARIANCE * spread
        + COVARIANCE * (off_diagonal(one) + off_diagonal(other))
    )


def off_diagonal(z: Tensor) -> Tensor:
    """Sum of the squared covariances of different components of z (N, D), over D."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / z.shape[1]


def views(side: int) -> v2.Transform:
    """What makes a view (3, side, side) of a photo (3, H, W) of bytes."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.25, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v2.RandomGrayscale(0.1),
            v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.5))], p=0.3),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ]
    )


def training_photos(config: TrainConfig, prepared: Prepared) -> list[Tensor]:
    """The photos (3, H, W) of the training part of a fold, as bytes."""
    cache = build_cache(config, Journal(Console(quiet=True)))
    held = held_photos(prepared, subset_rows(prepared, "train"), Holding.for_training(config.image_size), cache)
    return [torch.from_numpy(np.array(held[i])).permute(2, 0, 1) for i in range(len(held))]


def pretrain(config: TrainConfig, epochs: int, batch: int, out: Path) -> dict[str, Any]:
    """Weights learned by VICReg on a fold's training photos, as a file for ``--init pretrained:FILE``."""
    prepared = prepare_data(config)
    photos = training_photos(config, prepared)
    seed_everything(config.seed)
    model, _ = build_model(config, len(prepared.manifest.classes))
    layers = [nn.Linear(model.num_features, PROJECTED)]
    for _ in range(2):
        layers += [nn.BatchNorm1d(PROJECTED), nn.ReLU(), nn.Linear(PROJECTED, PROJECTED)]
    projector = nn.Sequential(*layers)
    model.to(memory_format=torch.channels_last).train()
    parameters = [*model.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.05)
    steps = epochs * (len(photos) // batch)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps, pct_start=0.1)
    view = views(config.image_size * 2 // 3)
    losses: list[float] = []
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(photos))
        for chosen in order[: len(photos) // batch * batch].split(batch):
            pair = torch.stack([view(photos[i]) for _ in range(2) for i in chosen])
            with torch.autocast("cpu", torch.bfloat16), matrix_products("cpu"):
                pair = pair.contiguous(memory_format=torch.channels_last)
                features = model.forward_head(model.forward_features(pair), pre_logits=True)
            loss = vicreg_loss(*projector(features.float()).chunk(2))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            course.step()
            losses.append(loss.item())
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out)
    return {
        "photos": len(photos), "steps": steps, "loss_first": losses[0], "loss_last": statistics.fmean(losses[-5:]),
        "seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - processor,
    }  # fmt: skip


def settings_of(arguments: argparse.Namespace, model: str, fold: int, seed: int) -> TrainConfig:
    """The protocol for one model, fold and seed."""
    place = {"data": arguments.data, "split": arguments.split, "fold": fold, "seed": seed, "evaluate_test": False}
    return resolve_config({"protocol": "strict", "model": model, "image_size": arguments.image_size, **place})


def trained(arguments: argparse.Namespace, config: TrainConfig, arm: str) -> dict[str, Any]:
    """Train one arm, unless it is there already: its figures on the validation photos, and what it cost."""
    part = f"{config.model}-{arm}-{config.image_size}px-b{arguments.batch}-s{config.seed}-f{config.fold}"
    place: Path = arguments.work / part.replace(".", "_")
    report = place.with_suffix(".cost.json")
    metrics = place / "metrics.json"
    if not (report.exists() and metrics.exists()):
        shutil.rmtree(place, ignore_errors=True)  # the cost is that of a whole run
        half = config.epochs // 2
        command = [
            "train", "--protocol", "strict", "--model", config.model, "--image-size", str(config.image_size),
            "--data", str(arguments.data), "--split", str(arguments.split), "--fold", str(config.fold),
            "--seed", str(config.seed), "--no-evaluate-test", "--out", str(place),
            "--epochs", str(config.epochs if arm == "scratch" else half),
            "--lr", str(config.lr), "--warmup-epochs", str(config.warmup_epochs),
        ]  # fmt: skip
        cost: dict[str, Any] = {}
        if arm == "self_supervised":
            weights = place.with_suffix(".safetensors")
            cost["pretraining"] = pretrain(config, half, arguments.batch, weights)
            command += ["--init", f"pretrained:{weights}"]
        took = measured(hcoatnet(*command), torch.get_num_threads(), place.with_suffix(".log"))
        write_json(report, {**cost, "command_processor_seconds": took.processor})
    found = json.loads(metrics.read_text(encoding="utf-8"))
    figures = found["subsets"]["val"]
    training = int((read_table(place / "split.csv")["subset"] == "train").sum())
    return {
        "model": config.model, "arm": arm, "seed": config.seed, "fold": config.fold,
        "photos": figures["n"], "training_photos": training,
        "macro_f1": figures["macro_f1"]["value"], "log_loss": figures["log_loss"]["value"],
        "best_epoch": found["best_epoch"], "training_seconds": found["training_seconds"],
        **json.loads(report.read_text(encoding="utf-8")),
    }  # fmt: skip


def differences(rows: Sequence[dict[str, Any]], reference: str, model: str) -> list[float]:
    """How the macro F1 of the self-supervised arm differs from another's: the mean over the seeds of each fold."""
    of = {(row["arm"], row["fold"], row["seed"]): row["macro_f1"] for row in rows if row["model"] == model}
    by_fold: dict[int, list[float]] = {}
    for arm, fold, seed in sorted(of):
        if arm == "self_supervised" and (reference, fold, seed) in of:
            by_fold.setdefault(fold, []).append(of[arm, fold, seed] - of[reference, fold, seed])
    return [statistics.fmean(values) for values in by_fold.values()]


def summary(rows: Sequence[dict[str, Any]], models: Sequence[str]) -> list[dict[str, Any]]:
    """The mean difference of the self-supervised arm from each other one, with Nadeau and Bengio's standard error."""
    ratio = statistics.fmean(row["photos"] / row["training_photos"] for row in rows)
    found = []
    for model in models:
        for reference in ARMS[:2]:
            values = differences(rows, reference, model)
            if len(values) > 1:
                told = corrected_t(np.array(values), ratio)
                one = {"model": model, "against": reference, "folds": len(values), "mean": statistics.fmean(values)}
                found.append({**one, "standard_error": told.standard_error})
    return found


def lines(result: Mapping[str, Any]) -> list[str]:
    """Markdown: macro F1 and log loss of each arm, and the mean difference in macro F1 from the self-supervised one."""
    table = [["model", "fold", "seed", *ARMS], ["---"] * (3 + len(ARMS))]
    of = {(row["model"], row["fold"], row["seed"], row["arm"]): row for row in result["rows"]}
    for model, fold, seed in dict.fromkeys(place[:3] for place in of):
        arms = [of[model, fold, seed, arm] for arm in ARMS]
        table.append([model, f"{fold}", f"{seed}", *(f"{row['macro_f1']:.3f} ({row['log_loss']:.2f})" for row in arms)])
    for one in result["summary"]:
        told = f"{-one['mean']:+.3f} ± {one['standard_error']:.3f}"
        if one["against"] == ARMS[0]:
            table.append([one["model"], "difference", "", *[""] * len(ARMS)])
        table[-1][3 + ARMS.index(one["against"])] = told
    return [f"| {' | '.join(row)} |" for row in table]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="manifest")
    parser.add_argument("split", type=Path, help="split file with folds")
    parser.add_argument("--models", nargs="+", default=["h_coatnet_atto", "convnext_atto"])
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64, help="photos a step of the pretraining")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for fold in arguments.folds:
        for seed in arguments.seeds:
            for model in arguments.models:
                for arm in ARMS:
                    row = trained(arguments, settings_of(arguments, model, fold, seed), arm)
                    rows.append(row)
                    place = f"fold {fold} seed {seed} {model:16} {arm:16}"
                    print(f"{place} {row['macro_f1']:.3f} {row['log_loss']:.2f}", flush=True)
    settings = {"image_size": arguments.image_size, "batch": arguments.batch}
    result = {**settings, "rows": rows, "summary": summary(rows, arguments.models)}
    write_json(arguments.out, result)
    print("\n".join(lines(result)))


if __name__ == "__main__":
    main()
