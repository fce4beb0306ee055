"""Training throughput, share of time waiting for photos, share of the machine's peak: (a), (b), (c) of the suite.

Same architecture, photos, batch size, threads, optimiser, rate and random changes for all; the contestants take
turns, an epoch each. *mild* changes are the same in all three: random resized crop of 80 to 100 % of the area, both
flips. *strong* adds rotation by 15°, TrivialAugmentWide and erasing to ours and to the plain script, and timm's own
RandAugment and erasing to the timm-style loop. Epoch 1 holds all that is done once: reading tables, decoding into the
cache, compiling. The figure for a run of E epochs is E times the photos of an epoch, over the first epoch and E − 1
times the median of the others.
"""

import statistics
from collections.abc import Mapping, Sequence

from collection import Collection, collect, read_photos
from contestant import Report, alternate
from results import Part, Raw
from setting import Setting, Subject

TITLE = "Training throughput, waiting and share of peak"
RUNS = (10, 30, 100)
RATE, DECAY = 5e-4, 0.01
OURS, COMPILED, FLOAT32 = "ours", "ours, compiled", "ours, fp32"
FIXED = "ours, photos for nothing"
PLAIN, TIMM, PEAK = "plain script", "timm-style", "matrix product"
TARGETS: dict[str, dict[str, float]] = {"cpu": {PLAIN: 1.3, TIMM: 1.15}, "cuda": {PLAIN: 2.0, FIXED: 0.9}}
"""Of the project, for H-CoAtNet: on two cores, and on an H200. A run of ten epochs, with all that is done once."""

WAITING = 0.02


def same_step(model: str, image_size: int, setting: Setting) -> dict[str, object]:
    """Settings with which this package takes the very step of the other scripts."""
    strong = setting.augmentation == "strong"
    return {
        "protocol": "quick", "model": model, "image_size": image_size, "batch_size": setting.scale.batch_size,
        "lr": RATE, "weight_decay": DECAY, "schedule": "constant", "warmup_epochs": 0, "clip_grad": 0,
        "class_weights": "none", "label_smoothing": 0, "dropout": 0, "crop_scale": 0.8, "horizontal_flip": 0.5,
        "vertical_flip": 0.5, "rotation": 15 if strong else 0, "trivial_augment": strong,
        "random_erasing": 0.2 if strong else 0, "device": setting.device,
    }  # fmt: skip


def product(collection: Collection, name: str, settings: dict[str, object], *flags: str) -> list[str]:
    """Command of this package's training on a collection, with a cache of its own."""
    manifest, split = collection.tables(name)
    out = manifest.parent / "run"
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["product.py", "--manifest", str(manifest), "--split", str(split), "--out", str(out), *given, *flags]


def script(file: str, collection: Collection, model: str, image_size: int, setting: Setting, epochs: int) -> list[str]:
    """Command of one of the scripts that this package is compared with."""
    return [
        file, str(collection.folder), "--model", model, "--image-size", str(image_size), "--epochs", str(epochs),
        "--batch-size", str(setting.scale.batch_size), "--lr", str(RATE), "--weight-decay", str(DECAY),
        "--augmentation", setting.augmentation, "--device", setting.device,
    ]  # fmt: skip


def measure(setting: Setting) -> Part:
    """All subjects, one after the other."""
    part = Part(TITLE)
    scale = setting.scale
    photos = read_photos(setting.data, setting.split)
    collection = collect(photos, setting.work / "training" / "photos", train=scale.train_photos, val=scale.val_photos)
    part.notes += [
        f"{collection.count('train')} training and {collection.count('val')} validation photos, batch "
        f"{scale.batch_size}, {setting.threads} threads, {setting.augmentation} changes, AdamW at {RATE:g}.",
        "Plain script and timm-style use two loader processes and, on a CPU, fp32 without channels_last; ours what the "
        "package chooses, named in the checks.",
    ]
    for number, subject in enumerate(scale.subjects):
        _measure_subject(part, subject, collection, setting, everything=number == 0)
    return part


def _measure_subject(part: Part, subject: Subject, collection: Collection, setting: Setting, everything: bool) -> None:
    model, size = subject
    rounds = setting.scale.rounds
    step = {**same_step(model, size, setting), "epochs": max(RUNS[0], rounds)}
    entrants = {
        OURS: product(collection, f"{model}-{size}", step),
        PLAIN: script("plain_script.py", collection, model, size, setting, rounds),
        TIMM: script("timm_style.py", collection, model, size, setting, rounds),
    }
    if everything and setting.scale.compiled:
        entrants[COMPILED] = product(collection, f"{model}-{size}-compiled", {**step, "compile": "true"})
    if everything:
        entrants[FLOAT32] = product(collection, f"{model}-{size}-fp32", {**step, "precision": "fp32"})
        entrants[FIXED] = product(collection, f"{model}-{size}-fixed", step, "--fixed")
    entrants[PEAK] = ["matrix_peak.py", "--device", setting.device, "--rounds", str(rounds)]
    logs = setting.work / "training" / "logs" / f"{model}-{size}"
    reports, failed = alternate(entrants, rounds, setting.threads, logs)
    part.notes += [f"{model} {size}²: not measured: {reason}" for reason in failed.values()]
    label = f"{model} {size}²"
    peaks = reports.pop(PEAK, [])
    for name, found in reports.items():
        _add_contestant(part, f"{label} / {name}", found, collection.count("train"))
    _compare(part, label, TARGETS[setting.device] if model.startswith("h_coatnet") else {})
    if OURS in reports:
        _add_waiting(part, label, reports[OURS])
        _add_peak(part, label, reports[OURS], peaks, collection.count("train"), setting.device)


def _add_contestant(part: Part, name: str, found: Sequence[Report], photos: int) -> None:
    trained = [report.get("photos", photos) for report in found]
    later = list(zip(found, trained, strict=True))[1:]
    first = found[0]["setup_seconds"] + found[0]["training_seconds"]
    median = statistics.median(report["training_seconds"] for report, _ in later)
    part.add(
        Raw(f"{name} / epoch 1", "photos/s", (trained[0] / first,)),
        Raw(
            f"{name} / epochs 2+",
            "photos/s",
            tuple(count / report["training_seconds"] for report, count in later),
            tuple(1000 * report["training_processor_seconds"] / count for report, count in later),
            "ms a photo",
        ),
    )
    for run in RUNS:
        seconds = first + (run - 1) * median
        part.add(Raw(f"{name} / run of {run} epochs", "photos/s", (run * trained[0] / seconds,)))
    keys = [key for key in ("train_loss", "val_loss", "val_macro_f1", "precision") if key in found[-1]]
    part.checks[f"{name} / after {len(found)} epochs"] = ", ".join(
        f"{key.replace('_', ' ')} {found[-1][key]}" for key in keys
    )


def _compare(part: Part, label: str, targets: Mapping[str, float]) -> None:
    """Ratios of throughputs."""
    for other in (PLAIN, TIMM):
        for ours in (OURS, COMPILED, FLOAT32):
            for what in ("epochs 2+", *(f"run of {run} epochs" for run in RUNS)):
                goal = targets.get(other) if ours == OURS and what == f"run of {RUNS[0]} epochs" else None
                names = (f"{label} / {ours} / {what}", f"{label} / {other} / {what}")
                part.compare(f"{label} / {ours} to {other} / {what}", *names, goal)
    names = (f"{label} / {OURS} / epochs 2+", f"{label} / {FIXED} / epochs 2+")
    part.compare(f"{label} / {OURS} to the same steps with photos for nothing", *names, targets.get(FIXED))


def _add_waiting(part: Part, label: str, found: Sequence[Report]) -> None:
    training, waiting = f"{label} / ours / training of an epoch", f"{label} / ours / waiting for photos"
    outside = f"{label} / ours / all outside the steps"
    later = found[1:]
    part.add(
        Raw(training, "s", tuple(report["training_seconds"] for report in later)),
        Raw(waiting, "s", tuple(report["waiting_seconds"] for report in later)),
        Raw(outside, "s", tuple(report["training_seconds"] - report["step_seconds"] for report in later)),
    )
    part.compare(f"{label} / share of time waiting for photos", waiting, training, WAITING, at_least=False)
    part.compare(f"{label} / share of time outside the steps", outside, training)


def _add_peak(
    part: Part, label: str, found: Sequence[Report], peaks: Sequence[Report], photos: int, device: str
) -> None:
    """Three times the forward pass's multiply-adds, over the time of the steps; on a GPU, which works on while the next
    step is prepared, over that of the epoch. The peak is that of the precision in which the steps compute."""
    if not peaks:
        return
    key = "training_seconds" if device == "cuda" else "step_seconds"
    precision = found[-1]["precision"]
    reached, peak = f"{label} / ours / multiply-adds of the steps", f"{label} / matrix product in {precision}"
    part.add(
        Raw(reached, "G/s", tuple(3 * photos * report["multiply_adds"] / report[key] / 1e9 for report in found[1:])),
        Raw(peak, "G/s", tuple(report[precision] / 1e9 for report in peaks[1:])),
    )
    part.compare(f"{label} / share of peak that the steps reach", reached, peak)


if __name__ == "__main__":
    from speed import main

    main("training")
