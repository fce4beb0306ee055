"""How the cost of training grows with photos, image size, classes and processes: (g) of the suite.

The points of one axis take turns, an epoch each. Photos: seconds of an epoch, a straight line through them. Image
size: seconds a photo, as a power of the number of pixels. Classes: photos are dealt out to so many drawn classes.
Processes: ``torchrun`` with threads and batch shared out; where there are as many
processes as cores, all that can be gained on one machine is what threads leave idle.
"""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from collection import Collection, Photo, collect, read_photos
from contestant import Report, alternate
from measured import CommandError, measured, python
from results import Part, Raw
from setting import Setting
from training_speed import product, same_step

TITLE = "Cost against photos, image size, classes and processes"
BASE_SIZE = 64
PROCESSES = (1, 2)
PROCESS_TURNS = 2


def measure(setting: Setting) -> Part:
    """The four axes."""
    part = Part(TITLE)
    photos = read_photos(setting.data, setting.split)
    _measure_photos(part, setting, photos)
    _measure_sizes(part, setting, photos)
    _measure_classes(part, setting, photos)
    _measure_processes(part, setting, photos)
    return part


def _middle(setting: Setting) -> int:
    grid = setting.scale.grid_photos
    return grid[len(grid) // 2]


def _collect(
    setting: Setting, photos: Sequence[Photo], name: str, count: int, classes: int = 0, **more: Any
) -> Collection:
    val = max(24, count // 8, classes)  # each class must be there
    return collect(photos, setting.work / "scaling" / name / "photos", train=count, val=val, **more)


def _settings(setting: Setting, size: int) -> dict[str, object]:
    return {
        **same_step(setting.scale.scaling_model, size, setting),
        "epochs": setting.scale.scaling_rounds,
        "compile": "false",
    }


def _take_turns(part: Part, setting: Setting, axis: str, entrants: Mapping[str, list[str]]) -> dict[str, list[Report]]:
    logs = setting.work / "scaling" / "logs" / axis
    reports, failed = alternate(entrants, setting.scale.scaling_rounds, setting.threads, logs)
    part.notes += [f"{axis}: not measured: {reason}" for reason in failed.values()]
    return reports


def _add(part: Part, name: str, unit: str, found: Sequence[Report], photos: int | None = None) -> float:
    """Seconds of an epoch, or milliseconds a photo, in epochs 2+; returns their median."""
    scale = 1.0 if photos is None else 1000 / photos
    wall = tuple(scale * report["training_seconds"] for report in found[1:])
    part.add(Raw(name, unit, wall, tuple(scale * report["training_processor_seconds"] for report in found[1:]), unit))
    return statistics.median(wall)


def _measure_photos(part: Part, setting: Setting, photos: Sequence[Photo]) -> None:
    collections = {}
    for count in setting.scale.grid_photos:
        made = _collect(setting, photos, f"photos-{count}", count)
        collections[made.count("train")] = made
    entrants = {
        f"photos {count}": product(made, f"photos-{count}", _settings(setting, BASE_SIZE))
        for count, made in collections.items()
    }
    reports = _take_turns(part, setting, "photos", entrants)
    points, first, memory = {}, {}, {}
    for count in collections:
        if found := reports.get(f"photos {count}"):
            points[count] = _add(part, f"{BASE_SIZE}² / {count} photos / epochs 2+", "s", found)
            first[count] = found[0]["setup_seconds"] + found[0]["training_seconds"]
            memory[count] = found[-1]["peak_memory"]
            part.add(Raw(f"{BASE_SIZE}² / {count} photos / epoch 1", "s", (first[count],)))
            part.add(Raw(f"{BASE_SIZE}² / {count} photos / largest memory", "MiB", (memory[count],)))
    for what, values, unit in (("epochs 2+", points, "s"), ("epoch 1", first, "s"), ("memory", memory, "MiB")):
        if len(values) > 1:
            line = statistics.linear_regression(list(values), list(values.values()))
            each = f"{1000 * line.slope:+.3g} ms" if unit == "s" else f"{1024 * line.slope:+.3g} KiB"
            part.checks[f"{what} against photos"] = f"{line.intercept:.3g} {unit} {each} a photo"


def _measure_sizes(part: Part, setting: Setting, photos: Sequence[Photo]) -> None:
    made = _collect(setting, photos, "sizes", _middle(setting))
    sizes = setting.scale.grid_sizes
    entrants = {f"size {size}": product(made, f"size-{size}", _settings(setting, size)) for size in sizes}
    reports = _take_turns(part, setting, "image size", entrants)
    points = {}
    for size in sizes:
        if found := reports.get(f"size {size}"):
            points[size] = _add(part, f"{size}² / epochs 2+", "ms a photo", found, made.count("train"))
    if len(points) > 1:
        pixels = [math.log(size**2) for size in points]
        slope = statistics.linear_regression(pixels, [math.log(value) for value in points.values()]).slope
        part.checks["time a photo against pixels"] = f"grows with the power {slope:.2f} of the number of pixels"


def _measure_classes(part: Part, setting: Setting, photos: Sequence[Photo]) -> None:
    collections = {}
    for classes in setting.scale.grid_classes:

        def drawn(number: int, photo: Photo, classes: int = classes) -> str:
            return f"class-{number % classes:04}"

        collections[classes] = _collect(
            setting, photos, f"classes-{classes}", max(_middle(setting), classes), classes, label=drawn
        )
    entrants = {
        f"classes {classes}": product(made, f"classes-{classes}", _settings(setting, BASE_SIZE))
        for classes, made in collections.items()
    }
    reports = _take_turns(part, setting, "classes", entrants)
    names = {}
    for classes, made in collections.items():
        if found := reports.get(f"classes {classes}"):
            names[classes] = f"{BASE_SIZE}² / {classes} classes / epochs 2+"
            _add(part, names[classes], "ms a photo", found, made.count("train"))
    if len(names) > 1:
        part.compare(f"{max(names)} classes to {min(names)}", names[max(names)], names[min(names)])


def _measure_processes(part: Part, setting: Setting, photos: Sequence[Photo]) -> None:
    """Runs of the command line, in turn; what an epoch took is read from each run's history."""
    made = _collect(setting, photos, "processes", setting.scale.grid_photos[-1])
    names = {
        count: f"{BASE_SIZE}² / {count} processes of {max(1, setting.threads // count)} threads / epochs 2+"
        for count in PROCESSES
    }
    speeds: dict[int, list[float]] = {count: [] for count in PROCESSES}
    for turn in range(PROCESS_TURNS):
        try:
            found = {count: _run(made, count, turn, setting) for count in PROCESSES}
        except (CommandError, OSError) as error:
            part.notes.append(f"processes: not measured: {error}")
            return
        for count, values in found.items():
            speeds[count] += values
    for count in PROCESSES:
        part.add(Raw(names[count], "photos/s", tuple(speeds[count])))
    most = max(PROCESSES)
    part.compare(f"{most} processes to 1", names[most], names[1])


def _run(made: Collection, count: int, turn: int, setting: Setting) -> list[float]:
    """Photos a second in epochs 2+ of one run, with the same photos in a step of all processes together."""
    settings = {**_settings(setting, BASE_SIZE), "batch_size": max(1, setting.scale.batch_size // count)}
    manifest, split = made.tables(f"processes-{count}")
    out = manifest.parent / f"run-{turn}"
    flags = ["--no-evaluate-test"]
    for name, value in settings.items():
        flag = name.replace("_", "-")
        flags += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    command = python(
        *launcher, "-m", "hcoatnet", "train", "--data", str(manifest), "--split", str(split), "--out", str(out), *flags
    )
    log = setting.work / "scaling" / "logs" / f"processes-{count}-{turn}.log"
    measured(command, max(1, setting.threads // count), log)
    with (out / "history.csv").open(encoding="utf-8", newline="") as stream:
        return [float(row["photos_per_second"]) for row in list(csv.DictReader(stream))[1:]]


if __name__ == "__main__":
    from speed import main

    main("scaling")
