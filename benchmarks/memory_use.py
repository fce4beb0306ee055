"""Memory of training, of reading and of predicting ever more photos: (f) of the suite.

Training: the largest memory of a process and its loader processes together, looked at five times a second, shared pages
counted once. Reading: an epoch of the loader over drawn photos, without a model; mapped files do not count. Predicting:
the largest resident size of the command. In the first and the last, mapped files count, so a cache of photos does, too;
the system takes such pages back when it needs them.
"""

import json
import shutil
import statistics

from collection import collect, read_photos
from contestant import FOLDER, alternate
from measured import CommandError, hcoatnet, measured, python
from results import Part, Raw
from setting import Setting
from specimen import make_specimen
from training_speed import OURS, PLAIN, TIMM, product, same_step, script

TITLE = "Memory"
TRAINING_PHOTOS = 96
ROUNDS = 2


def measure(setting: Setting) -> Part:
    """Training of every subject, then an epoch of reading, then predictions."""
    part = Part(TITLE)
    _measure_training(part, setting)
    for what, measure_one in (("reading", _measure_reading), ("predictions", _measure_predictions)):
        try:
            measure_one(part, setting)
        except CommandError as error:
            part.notes.append(f"{what}: not measured: {error}")
    return part


def _measure_training(part: Part, setting: Setting) -> None:
    photos = read_photos(setting.data, setting.split)
    collection = collect(photos, setting.work / "memory" / "photos", train=TRAINING_PHOTOS, val=TRAINING_PHOTOS // 3)
    for model, size in setting.scale.subjects:
        label = f"training {model} {size}²"
        entrants = {
            OURS: product(collection, f"{model}-{size}", {**same_step(model, size, setting), "epochs": ROUNDS}),
            PLAIN: script("plain_script.py", collection, model, size, setting, ROUNDS),
            TIMM: script("timm_style.py", collection, model, size, setting, ROUNDS),
        }
        logs = setting.work / "memory" / "logs" / f"{model}-{size}"
        reports, failed = alternate(entrants, ROUNDS, setting.threads, logs, watch_memory=True)
        part.notes += [f"{label}: not measured: {reason}" for reason in failed.values()]
        for name, found in reports.items():
            part.add(Raw(f"{label} / {name}", "MiB", tuple(report["memory_with_workers"] for report in found)))
        part.compare(f"{label} / {OURS} to {PLAIN}", f"{label} / {OURS}", f"{label} / {PLAIN}")
        part.compare(f"{label} / {OURS} to {TIMM}", f"{label} / {OURS}", f"{label} / {TIMM}")


def _measure_reading(part: Part, setting: Setting) -> None:
    folder, counts = setting.work / "memory" / "reading", setting.scale.read_photos
    for count in counts:
        log = folder / f"{count}.log"
        measured(python(str(FOLDER / "reading.py"), str(folder), "--photos", str(count)), setting.threads, log)
        found = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
        part.add(Raw(f"reading {count} photos, own memory", "MiB", (found["most"],)))
        part.add(Raw(f"reading {count} photos, filling the cache", "s", (found["filling_seconds"],)))
    names = [f"reading {count} photos, own memory" for count in (counts[-1], counts[0])]
    part.compare(f"reading {counts[-1]} photos to {counts[0]}, own memory", *names)


def _measure_predictions(part: Part, setting: Setting) -> None:
    specimen = make_specimen(setting)
    model = specimen.run if specimen.bundle is None else specimen.bundle
    kind = "run" if specimen.bundle is None else "bundle"
    photos = read_photos(setting.data, setting.split)
    counts, peaks = [], []
    for count in sorted({min(count, len(photos)) for count in setting.scale.predict_photos}):
        folder = setting.work / "memory" / f"predict-{count}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, photo in enumerate(photos[:count]):
            shutil.copyfile(photo.file, folder / f"{number:06}{photo.file.suffix}")
        command = hcoatnet("predict", str(model), str(folder), "--format", "csv")
        found = measured(command, setting.threads, setting.work / "memory" / f"predict-{count}.log")
        part.add(Raw(f"predicting {count} photos with a {kind}", "MiB", (found.peak,)))
        part.add(Raw(f"predicting {count} photos with a {kind}, time", "s", (found.seconds,), (found.processor,)))
        counts.append(count)
        peaks.append(found.peak)
    if len(counts) > 1:
        slope = statistics.linear_regression(counts, peaks).slope
        part.checks["growth of memory with the photos predicted"] = f"{1024 * slope:.1f} KiB a photo"
        names = [f"predicting {count} photos with a {kind}" for count in (counts[-1], counts[0])]
        part.compare(f"predicting {counts[-1]} photos to {counts[0]}, memory", *names)


if __name__ == "__main__":
    from speed import main

    main("memory")
