"""The benchmark suite: one command measures, prints and saves a table of ratios with machine, versions and spread.

    python benchmarks/speed.py --data manifest.csv --split folds.csv --out docs/results/speed.json
    python benchmarks/speed.py --data manifest.csv --quick --only training,inference
    python benchmarks/speed.py --tables docs/results/speed.json

Contestants take turns, so that what else the machine does hits all alike; still, leave the machine alone. Every part
can be run alone, by ``--only`` or as a script of its own. ``docs/how-to/benchmark.md`` says what each part measures.
"""

import argparse
import importlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import cuda_present, machine_facts
from setting import CUDA, FULL, QUICK, Setting
from speed_tables import tables

PARTS = {
    "step": "step_time",
    "training": "training_speed",
    "inference": "inference_speed",
    "start": "start_up",
    "memory": "memory_use",
    "scaling": "scaling",
    "target": "time_to_target",
}
"""Parts and the modules that measure them."""


def run_parts(setting: Setting, parts: Sequence[str], out: Path | None = None) -> dict[str, Any]:
    """Measure parts one after the other, print each, and save after each.

    Returns:
        The content of the file.
    """
    from hcoatnet.files import write_json

    found: dict[str, Any] = {
        "format": 1,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(setting.threads),
        "device": setting.device,
        "augmentation": setting.augmentation,
        "parts": {},
    }
    for name, value in found["machine"].items():
        print(f"{name:24}{value}")
    for name in parts:
        started = time.monotonic()
        part = importlib.import_module(PARTS[name]).measure(setting)
        seconds = round(time.monotonic() - started)
        found["parts"][name] = {**part.to_dict(), "seconds": seconds}
        found["machine"]["load_average_at_end"] = [round(one, 2) for one in os.getloadavg()]
        print("\n".join([*part.lines(), f"  measured in {seconds} s"]), flush=True)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, found)
    return found


def main(only: str | None = None) -> None:
    """The command; ``only`` is the part whose script was started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="manifest of real photos")
    parser.add_argument("--split", type=Path, help="split file; of folds, the first cell is taken")
    parser.add_argument("--only", default=only or ",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer photos, models and rounds: about ten minutes")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each contestant")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--augmentation", choices=("mild", "strong"), default="mild")
    parser.add_argument("--seeds", default="", help="seeds of the races of `target`, such as 1,2,3")
    parser.add_argument("--work", type=Path, help="folder for what is written on the way; a temporary one by default")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--tables", type=Path, help="print the tables of such a file and measure nothing")
    given = parser.parse_args()
    if given.tables:
        print(*tables(json.loads(given.tables.read_text(encoding="utf-8"))["parts"]), sep="\n\n")
        return
    if given.data is None:
        parser.error("give the manifest of real photos with --data")
    parts = [name.strip() for name in given.only.split(",")]
    if unknown := [name for name in parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    device = given.device
    if device == "auto":
        device = "cuda" if cuda_present() else "cpu"
    scale = QUICK if given.quick else CUDA if device == "cuda" else FULL
    if given.seeds:
        scale = replace(scale, target_seeds=tuple(int(seed) for seed in given.seeds.split(",")))
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.work or Path(temporary)).resolve()
        setting = Setting(given.data, given.split, work, given.threads, device, given.augmentation, scale)
        run_parts(setting, parts, given.out)


if __name__ == "__main__":
    main()
