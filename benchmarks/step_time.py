"""Time of one optimiser step in the arithmetic that `hcoatnet train` chooses on a CPU, and in others."""

from contestant import alternate
from results import Part, Raw
from setting import Setting
from stepping import WAYS

TITLE = "Time of an optimiser step on a CPU"
USED = "products"
"""What `hcoatnet train` does where the processor computes in bf16."""


def measure(setting: Setting) -> Part:
    """All subjects, one after the other; nothing where the suite measures a GPU."""
    part = Part(TITLE)
    if setting.device != "cpu":
        part.notes.append("Not measured: the suite measures a GPU.")
        return part
    scale = setting.scale
    part.notes.append(f"Batch {scale.batch_size}, photos at hand, {setting.threads} threads, AdamW.")
    for number, (model, size) in enumerate(scale.steps):
        label = f"{model} {size}²"
        ways = WAYS if number == 0 and scale.compiled else tuple(way for way in WAYS if way != "compiled")
        same = ["--model", model, "--image-size", str(size), "--batch-size", str(scale.batch_size)]
        same += ["--rounds", str(scale.step_rounds)]
        entrants = {way: ["stepping.py", *same, "--way", way] for way in ways}
        reports, failed = alternate(entrants, scale.step_rounds, setting.threads, setting.work / "steps" / label)
        part.notes += [f"{label}: not measured: {reason}" for reason in failed.values()]
        for way, found in reports.items():
            wall, processor = (tuple(1000 * one[key] for one in found) for key in ("seconds", "processor_seconds"))
            part.add(Raw(f"{label} / {way}", "ms", wall, processor, "ms"))
        for way in ways:
            if way != USED:
                part.compare(f"{label} / {way} to {USED}", f"{label} / {way}", f"{label} / {USED}")
    return part


if __name__ == "__main__":
    from speed import main

    main("step")
