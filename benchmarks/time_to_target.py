"""Seconds to a validation macro F1 that the plain script reaches: (h) of the suite.

The plain script trains for a fixed number of epochs and sets the target: its best validation macro F1. The figure for
it is the time to that epoch, for us the time to the first epoch that is as good. Both take turns, and time is counted
from the first line after the imports: reading tables, decoding, compiling, every validation and checkpoint included.
Ours uses the settings of ``OURS``, which differ from the script's: that is the means. One race is one draw: the F1 of
a few hundred photos jumps about, so read the spread over several seeds, and the curves in the file.
"""

from collections.abc import Sequence

from collection import collect, read_photos
from contestant import Report, alternate
from results import Part, Raw
from setting import Setting
from training_speed import product, script

TITLE = "Time to a fixed validation macro F1"
AT_MOST = 0.5
"""Target of the project: the share of the plain script's time."""

OURS: dict[str, object] = {
    "protocol": "quick",
    "batch_size": 24,
}
"""Settings of ``hcoatnet train`` beside model, image size, photos and epochs."""


def measure(setting: Setting) -> Part:
    """One race a seed."""
    part = Part(TITLE)
    model, size = setting.scale.target
    epochs = setting.scale.target_epochs
    photos = read_photos(setting.data, setting.split)
    scale = setting.scale
    collection = collect(photos, setting.work / "target" / "photos", train=scale.train_photos, val=scale.val_photos)
    races = []
    for seed in setting.scale.target_seeds:
        ours = {**OURS, "model": model, "image_size": size, "epochs": epochs, "seed": seed, "device": setting.device}
        entrants = {
            "plain": [*script("plain_script.py", collection, model, size, setting, epochs), "--seed", str(seed)],
            "ours": product(collection, f"seed-{seed}", ours),
        }
        reports, failed = alternate(entrants, epochs, setting.threads, setting.work / "target" / f"logs-{seed}")
        part.notes += [f"seed {seed}: not measured: {reason}" for reason in failed.values()]
        if not failed:
            races.append(_race(part, seed, reports["plain"], reports["ours"]))
    if races:
        _add_races(part, f"{model} {size}²", races)
    part.notes.append(f"Ours: {', '.join(f'{key} {value}' for key, value in OURS.items())}.")
    return part


def cumulative(found: Sequence[Report], key: str = "seconds") -> list[float]:
    """Seconds from the start to the end of each epoch, validation included."""
    total, sums = 0.0, []
    for report in found:
        total += report[key]
        sums.append(total)
    return sums


def first_reaching(found: Sequence[Report], target: float) -> int | None:
    """Index of the first epoch whose validation macro F1 is ``target`` at least."""
    return next((number for number, report in enumerate(found) if report["val_macro_f1"] >= target), None)


def _race(part: Part, seed: int, plain: Sequence[Report], ours: Sequence[Report]) -> dict[str, float | None]:
    """Where one race was decided; both curves go into the checks."""
    target = max(report["val_macro_f1"] for report in plain)
    theirs, mine = first_reaching(plain, target), first_reaching(ours, target)
    for name, found in (("plain script", plain), ("ours", ours)):
        part.checks[f"seed {seed} / {name} / seconds: validation macro F1"] = ", ".join(
            f"{seconds:.0f}: {report['val_macro_f1']:.3f}"
            for seconds, report in zip(cumulative(found), found, strict=True)
        )
    assert theirs is not None
    race: dict[str, float | None] = {"target": target}
    for key in ("seconds", "processor_seconds"):
        race[f"plain {key}"] = cumulative(plain, key)[theirs]
        race[f"ours {key}"] = None if mine is None else cumulative(ours, key)[mine]
    if mine is None:
        best = max(report["val_macro_f1"] for report in ours)
        part.notes.append(f"seed {seed}: ours did not reach {target:.3f}; its best is {best:.3f}. It counts as missed.")
    return race


def _add_races(part: Part, label: str, races: Sequence[dict[str, float | None]]) -> None:
    """Only races in which ours arrived have a ratio; the others are counted beside it."""
    arrived = [{key: value for key, value in race.items() if value is not None} for race in races]
    arrived = [race for race in arrived if "ours seconds" in race]
    part.add(Raw(f"{label} / validation macro F1 to reach", "", tuple(race["target"] or 0.0 for race in races)))
    part.checks["races in which ours arrived"] = f"{len(arrived)} of {len(races)}"
    if not arrived:
        return
    for name in ("plain", "ours"):
        wall = tuple(race[f"{name} seconds"] for race in arrived)
        processor = tuple(race[f"{name} processor_seconds"] for race in arrived)
        part.add(Raw(f"{label} / {name}, time to it", "s", wall, processor))
    names = [f"{label} / {name}, time to it" for name in ("ours", "plain")]
    part.compare(f"{label} / time of ours to the plain script's", *names, AT_MOST, at_least=False)


if __name__ == "__main__":
    from speed import main

    main("target")
