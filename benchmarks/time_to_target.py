"""Seconds to a validation macro F1 that the plain script reaches: (h) of the suite.

The plain script trains for a fixed number of epochs and sets the target: its best validation macro F1. The figure for
it is the time to that epoch, for us the time to the first epoch that is as good. Time is counted from the first line
after the imports: reading tables, decoding, every validation and checkpoint included. Our means are the settings of
``MEANS`` and ``EPOCHS``: with photos of the script's size throughout, and with smaller ones at first. One race is one
draw: the F1 of a few hundred photos jumps about, so read the spread over several seeds, and the curves.
"""

from collections.abc import Mapping, Sequence

from collection import collect, read_photos
from contestant import Report, alternate
from results import Part, Raw
from setting import Setting
from training_speed import RATE, product, script

TITLE = "Time to a fixed validation macro F1"
AT_MOST = 0.5
"""Target of the project: the share of the plain script's time."""

PLAIN, SAME, GROWING = "plain script", "ours", "ours, growing photos"
MEANS: dict[str, object] = {"protocol": "quick", "initialisation": "fan_in", "warmup_epochs": 1}
"""Settings of `hcoatnet train`, beside those of its protocol."""

START = 2 / 3
"""Side of the photos with which growing ones begin, as a share."""

EPOCHS = {SAME: 0.8, GROWING: 0.9}
"""As a share of the script's."""


def measure(setting: Setting) -> Part:
    """One race a seed."""
    part = Part(TITLE)
    scale = setting.scale
    model, size = scale.target
    photos = read_photos(setting.data, setting.split)
    collection = collect(photos, setting.work / "target" / "photos", train=scale.train_photos, val=scale.val_photos)
    starts = {SAME: 0, GROWING: round(START * size / 32) * 32}
    rounds = {PLAIN: scale.target_epochs}
    rounds |= {name: max(1, round(share * scale.target_epochs)) for name, share in EPOCHS.items()}
    races: list[dict[str, list[Report]]] = []
    for seed in scale.target_seeds:
        plain = script("plain_script.py", collection, model, size, setting, scale.target_epochs)
        entrants = {PLAIN: [*plain, "--seed", str(seed)]}
        for number, (name, start) in enumerate(starts.items()):
            settings = {**MEANS, "model": model, "image_size": size, "start_size": start}
            settings |= {"epochs": rounds[name], "seed": seed}
            table = f"{number}-{seed}"
            entrants[name] = product(collection, table, {**settings, "device": setting.device})
        reports, failed = alternate(entrants, rounds, setting.threads, setting.work / "target" / f"logs-{seed}")
        part.notes += [f"seed {seed}: not measured: {reason}" for reason in failed.values()]
        if not failed:
            races.append(reports)
            _add_curves(part, seed, reports)
    if races:
        for name in starts:
            _add_races(part, f"{model} {size}²", name, races)
    part.notes.append(
        f"Plain script: {rounds[PLAIN]} epochs at {size}², AdamW at {RATE:g}, constant. Ours: {rounds[SAME]} epochs; "
        f"with photos that grow from {starts[GROWING]}² {rounds[GROWING]}; "
        f"{', '.join(f'{key} {value}' for key, value in MEANS.items())}."
    )
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


def best(found: Sequence[Report]) -> float:
    """The best validation macro F1."""
    return max(report["val_macro_f1"] for report in found)


def _add_curves(part: Part, seed: int, reports: Mapping[str, Sequence[Report]]) -> None:
    for name, found in reports.items():
        points = zip(cumulative(found), found, strict=True)
        curve = ", ".join(f"{seconds:.0f}: {report['val_macro_f1']:.3f}" for seconds, report in points)
        part.checks[f"seed {seed} / {name} / seconds: validation macro F1"] = curve


def _add_races(part: Part, label: str, name: str, races: Sequence[Mapping[str, Sequence[Report]]]) -> None:
    """Times of the script and of one of ours. Races in which ours did not arrive have no ratio, and are counted."""
    arrived = [race for race in races if best(race[name]) >= best(race[PLAIN])]
    scores = ", ".join(f"{best(race[name]):.3f} of {best(race[PLAIN]):.3f}" for race in races)
    part.checks[f"{name}: races in which it arrived"] = f"{len(arrived)} of {len(races)}; best macro F1 {scores}"
    for who in (PLAIN, name):
        part.add(Raw(f"{label} / best macro F1 of {who}, beside {name}", "", tuple(best(race[who]) for race in races)))
    if not arrived:
        part.notes.append(f"{name} did not reach the script's macro F1 in any race: the project's target is missed.")
        return
    names = {PLAIN: f"{label} / {PLAIN}, where {name} arrived", name: f"{label} / {name}"}
    for who, raw in names.items():
        ends = [first_reaching(race[who], best(race[PLAIN])) for race in arrived]
        wall, processor = (
            tuple(cumulative(race[who], key)[end or 0] for race, end in zip(arrived, ends, strict=True))
            for key in ("seconds", "processor_seconds")
        )
        part.add(Raw(raw, "s", wall, processor))
    part.compare(f"{label} / time of {name} to the plain script's", names[name], names[PLAIN], AT_MOST, at_least=False)


if __name__ == "__main__":
    from speed import main

    main("target")
