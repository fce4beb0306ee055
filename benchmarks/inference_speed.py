"""Time of an answer at batch 1 and 32: torch, torch compiled, ONNX Runtime, int8: (d) of the suite, on the CPU.

Each way runs in a process of its own with the same threads and gives logits and token traces, as in the package. The
weights are drawn, so agreement of int8 says how much is rounded, not whether a trained model may use it: ``hcoatnet
export --int8`` decides that on a run's validation photos. Compiling and loading are not in the times.
"""

import json
from pathlib import Path

from answering import BATCHES, FLOAT, INT8_WAYS
from collection import collect, read_photos
from contestant import FOLDER, alternate
from measured import CommandError, measured, python
from results import Part, Raw
from setting import Setting, Subject

TITLE = "Inference"
AGAINST_EAGER = 1.3
"""Target of the project for ONNX Runtime at batch 1."""

WAYS = {"eager": "eager", "compiled": "compiled", "ONNX Runtime": Path(FLOAT).stem} | {
    f"int8, {way}": way for way in INT8_WAYS
}


def measure(setting: Setting) -> Part:
    """All subjects, one after the other."""
    part = Part(TITLE)
    photos = read_photos(setting.data, setting.split)
    most = max(BATCHES)
    collection = collect(photos, setting.work / "inference" / "photos", train=most, val=most)
    for subject in setting.scale.inference:
        _measure_subject(part, subject, collection.folder / "train", setting)
    return part


def _measure_subject(part: Part, subject: Subject, photos: Path, setting: Setting) -> None:
    (model, size), scale = subject, setting.scale
    label = f"{model} {size}²"
    folder = setting.work / "inference" / f"{model}-{size}"
    shared = ["--model", model, "--image-size", str(size), "--photos", str(photos), "--files", str(folder)]
    ways = dict(WAYS)
    try:
        measured(python(str(FOLDER / "answering.py"), *shared, "--make"), setting.threads, folder / "make.log")
        for name, facts in json.loads((folder / "facts.json").read_text(encoding="utf-8")).items():
            part.checks[f"{label} / {name}.onnx to torch"] = (
                f"largest logit difference {facts['largest_logit_difference']:.2g} (standard deviation of the logits "
                f"{facts['spread_of_logits']:.2g}), same top class {facts['same_top_class']:.0%}, "
                f"{facts['mib']:.1f} MiB"
            )
    except CommandError as error:
        part.notes.append(f"{label}: ONNX Runtime not measured: {error}")
        ways = {name: way for name, way in ways.items() if way in ("eager", "compiled")}
    turns = ["--threads", str(setting.threads), "--seconds", str(scale.inference_seconds)]
    turns += ["--rounds", str(scale.inference_rounds)]
    entrants = {name: ["answering.py", *shared, "--way", way, *turns] for name, way in ways.items()}
    reports, failed = alternate(entrants, scale.inference_rounds, setting.threads, folder)
    part.notes += [f"{label}: not measured: {reason}" for reason in failed.values()]
    for batch in BATCHES:
        for name, found in reports.items():
            times = [report[str(batch)] for report in found]
            wall = tuple(1000 * one["seconds"] / batch for one in times)
            processor = tuple(1000 * one["processor"] / batch for one in times)
            part.add(Raw(f"{label} / batch {batch} / {name}", "ms a photo", wall, processor, "ms a photo"))
        for name in ways:
            target = AGAINST_EAGER if name == "ONNX Runtime" and batch == 1 else None
            if name != "eager":
                names = [f"{label} / batch {batch} / {one}" for one in ("eager", name)]
                part.compare(f"{label} / batch {batch} / speed of {name} to eager", *names, target)


if __name__ == "__main__":
    from speed import main

    main("inference")
