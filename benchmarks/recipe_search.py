"""Which settings matter when few photos train a network: a screening on validation photos, and what it says.

    python benchmarks/recipe_search.py plan --weights efficientnet-lite0.pth > search.yaml
    hcoatnet study run --config search.yaml --data manifest.csv --split folds.csv --folds 0 --out search --jobs 2
    python benchmarks/recipe_search.py read search --out docs/results/pad_ufes_20/search.json

Eleven settings with two levels each are tried in the twelve runs of Plackett and Burman's design (Biometrika 33, 1946),
the same for every arm: each level of each setting stands in six runs, beside each level of every other three times, so
that every run tells about every setting. A setting's effect is the mean of six runs less the mean of the other six. It
is least squares over all arms, too, with an intercept an arm; what the settings do not explain (seeds, and settings
that work together) is the residual that the intervals come from. The test sets stay closed.
"""

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
import yaml
from numpy.typing import NDArray
from scipy.stats import t as student_t

from hcoatnet.files import write_json
from hcoatnet.training.run_directory import RunDirectory

GENERATOR = (1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0)


@dataclass(frozen=True)
class Factor:
    """A setting, or several that belong together, on two levels.

    Attributes:
        name: What the table calls it.
        low: Keys of the study file on the first level.
        high: The same keys on the second.
    """

    name: str
    low: Mapping[str, Any]
    high: Mapping[str, Any]

    @property
    def words(self) -> str:
        """The change, such as ``ema 0.0 → 0.98``."""
        return ", ".join(f"{key} {self.low[key]} → {self.high[key]}" for key in self.low)


FACTORS = (
    Factor("learning rate × 3", {"lr": 0.0005}, {"lr": 0.0015}),
    Factor("class weights", {"class_weights": "none"}, {"class_weights": "sqrt"}),
    Factor("class-balanced sampler", {"sampler": "shuffle"}, {"sampler": "weighted"}),
    Factor("stronger geometry", {"crop_scale": 0.8, "rotation": 0}, {"crop_scale": 0.4, "rotation": 30}),
    Factor("TrivialAugment", {"trivial_augment": False}, {"trivial_augment": True}),
    Factor("twice the epochs", {"epochs": 16}, {"epochs": 32}),
    Factor("average of weights", {"ema": 0.0}, {"ema": 0.98}),
    Factor("warm-up", {"warmup_epochs": 0}, {"warmup_epochs": 4}),
    Factor("weight decay × 30", {"weight_decay": 0.01}, {"weight_decay": 0.3}),
    Factor("stochastic depth", {"drop_path": 0.0}, {"drop_path": 0.15}),
    Factor("label smoothing", {"label_smoothing": 0.0}, {"label_smoothing": 0.1}),
)
# What no row changes, written out: a protocol may become another one later.
COMMON: Mapping[str, Any] = {
    "protocol": "quick",
    "image_size": 96,
    "initialisation": "fan_in",
    "batch_size": 16,
    "optimizer": "adamw",
    "schedule": "cosine",
    "clip_grad": 1.0,
    "min_lr": 0.0,
    "dropout": 0.1,
    "mixup": 0.0,
    "cutmix": 0.0,
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "random_erasing": 0.0,
    "monitor": "macro_f1",
    "evaluate_test": False,
    "seeds": [42],
    "inits": ["scratch"],
}
METRICS = ("macro_f1", "log_loss")
BACKBONE = "tf_efficientnet_lite0"
SCRATCH: Mapping[str, Mapping[str, Any]] = {
    "h_coatnet": {"model": "h_coatnet_atto"},
    "convnext": {"model": "convnext_atto"},
    "efficientnet": {"model": BACKBONE},
    "vit": {"model": "vit_tiny_patch16_224"},
}
PRETRAINED: Mapping[str, Mapping[str, Any]] = {
    "pretrained_efficientnet": {"model": BACKBONE},
    "pretrained_h_coatnet": {"model": "h_coatnet", "model_options": {"backbone": BACKBONE}},
}
# What begins with ImageNet weights is fine-tuned: less often, in smaller steps.
FINE_TUNED: Mapping[str, float] = {"lr": 0.4, "epochs": 0.5, "warmup_epochs": 0.5}


def design() -> NDArray[np.int64]:
    """Plackett and Burman's twelve runs (12, 11) of levels 0 and 1: a cyclic shift of one row, and all low."""
    return np.array([np.roll(GENERATOR, shift) for shift in range(len(GENERATOR))] + [[0] * len(GENERATOR)])


def settings_of(levels: Sequence[int]) -> dict[str, Any]:
    """The keys of the study file for one run of the design."""
    found: dict[str, Any] = {}
    for factor, level in zip(FACTORS, levels, strict=True):
        found |= factor.high if level else factor.low
    return found


def rows(weights: str | None) -> list[dict[str, Any]]:
    """Rows of the study file: every arm with every run of the design; without weights no fine-tuned ones."""
    found = []
    for number, levels in enumerate(design(), start=1):
        for arm, fixed in SCRATCH.items():
            found.append({"name": f"{arm}-{number:02}", **deepcopy(fixed), **settings_of(levels)})
        for arm, fixed in PRETRAINED.items() if weights else ():
            settings = settings_of(levels)
            settings |= {key: type(settings[key])(round(settings[key] * by, 6)) for key, by in FINE_TUNED.items()}
            arm_settings = {**deepcopy(fixed), "init": f"pretrained:{weights}"}
            found.append({"name": f"{arm}-{number:02}", **arm_settings, **settings})
    return found


def plan(weights: str | None) -> str:
    """The study file."""
    return yaml.safe_dump({**COMMON, "models": rows(weights)}, sort_keys=False, default_flow_style=None, width=120)


@dataclass(frozen=True)
class Trained:
    """One run of the design by one arm.

    Attributes:
        arm: Which network, and how it begins.
        run: Number of the design's run, from 0.
        figures: Validation figures of the checkpoint that was chosen.
        seconds: Of training.
    """

    arm: str
    run: int
    figures: Mapping[str, float]
    seconds: float


def read(study: Path) -> list[Trained]:
    """The finished runs of the study, arm by arm in the order of the plan.

    Raises:
        ValueError: An arm lacks runs of the design.
    """
    found: dict[str, list[Trained]] = {}
    for folder in sorted((study / "runs").iterdir()):
        arm, _, rest = folder.name.partition("-")
        run = RunDirectory(folder)
        if run.finished:
            results = run.results()
            figures = {metric: results["subsets"]["val"][metric]["value"] for metric in METRICS}
            trained = Trained(arm, int(rest.partition("-")[0]) - 1, figures, results["training_seconds"])
            found.setdefault(arm, []).append(trained)
    for arm, runs in found.items():
        if sorted(one.run for one in runs) != list(range(len(design()))):
            raise ValueError(f"{study}: {arm} has {len(runs)} of {len(design())} runs. Finish the study first.")
    return [one for arm in (*SCRATCH, *PRETRAINED) for one in found.get(arm, [])]


def effects(runs: Sequence[Trained], metric: str) -> list[dict[str, Any]]:
    """What each setting does to a figure: in each arm, and in the mean of the arms with its 95 % interval.

    The interval is that of least squares with an intercept an arm and the same effects in all.
    """
    arms = list(dict.fromkeys(one.arm for one in runs))
    levels = pd.DataFrame([design()[one.run] for one in runs])
    table = np.column_stack([pd.get_dummies([one.arm for one in runs], dtype=float)[arms], levels])
    values = np.array([one.figures[metric] for one in runs])
    fitted = sm.OLS(values, table).fit()
    found = []
    for index, factor in enumerate(FACTORS):
        low, high = fitted.conf_int()[len(arms) + index]
        high_level = levels[index].to_numpy() == 1
        by_arm = {}
        for arm in arms:
            mine = np.array([one.arm == arm for one in runs])
            by_arm[arm] = float(values[mine & high_level].mean() - values[mine & ~high_level].mean())
        mean = float(fitted.params[len(arms) + index])
        found.append({"name": factor.name, "arms": by_arm, "mean": mean, "low": float(low), "high": float(high)})
    return found


def margin(values: Sequence[float]) -> float:
    """Lenth's margin of error (Technometrics 31, 1989): an effect within it does not stand out of the others.

    Args:
        values: The effects of a design that has no runs to spare for an error.
    """
    size = np.abs(values)
    first = 1.5 * np.median(size)
    error = 1.5 * np.median(size[size < 2.5 * first])
    return float(student_t.ppf(0.975, len(size) / 3) * error)


def found(study: Path) -> dict[str, Any]:
    """Everything that the screening says, for the result file."""
    runs = read(study)
    told = [{"name": factor.name, "low": dict(factor.low), "high": dict(factor.high)} for factor in FACTORS]
    listed = [
        {
            "arm": one.arm,
            "run": one.run + 1,
            "levels": design()[one.run].tolist(),
            "seconds": one.seconds,
            **one.figures,
        }
        for one in runs
    ]
    said = {}
    for metric in METRICS:
        table = effects(runs, metric)
        margins = {arm: margin([row["arms"][arm] for row in table]) for arm in table[0]["arms"]}
        said[metric] = {"effects": table, "margins": margins}
    return {"settings": told, "fine_tuned": dict(FINE_TUNED), "runs": listed, **said}


def lines(result: Mapping[str, Any]) -> list[str]:
    """Markdown: a table of effects on macro F1, the largest first."""
    table = sorted(result["macro_f1"]["effects"], key=lambda row: -abs(row["mean"]))
    margins = result["macro_f1"]["margins"]
    told = {one["name"]: Factor(**one).words for one in result["settings"]}
    rows = [["setting", "change", *margins, "mean (95 % interval)"]]
    for row in table:
        mean = f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        by_arm = [f"{value:+.3f}" for value in row["arms"].values()]
        rows.append([row["name"], f"`{told[row['name']]}`", *by_arm, mean])
    rows.append(["within this, nothing stands out", "", *(f"{value:.3f}" for value in margins.values()), ""])
    rows.insert(1, ["---"] * len(rows[0]))
    return [f"| {' | '.join(row)} |" for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    planning = commands.add_parser("plan", help="print the study file")
    planning.add_argument("--weights", help="ImageNet weights of EfficientNet-Lite0, as the study file is to name them")
    reading = commands.add_parser("read", help="say what a finished study found")
    reading.add_argument("study", type=Path)
    reading.add_argument("--out", type=Path, help="result file")
    given = parser.parse_args()
    if given.command == "plan":
        print(plan(given.weights), end="")
        return
    result = found(given.study)
    if given.out:
        write_json(given.out, result)
    print("\n".join(lines(result)))


if __name__ == "__main__":
    main()
