"""What pruning costs and saves: multiply-adds, time and memory of H-CoAtNet with and without, and with a window.

    python benchmarks/pruning_cost.py --out docs/results/pruning_cost.json   # 25 minutes on one quiet core
    python benchmarks/pruning_cost.py --tables docs/results/pruning_cost.json
    python benchmarks/pruning_cost.py --rounds 3 --sizes atto:96             # a look

Random weights and photos of noise, float32, channels_last: time does not depend on what a photo shows. The models of
one size take turns in one process, and every time is the least of all rounds, so that what else the machine does falls
out. Beside each ratio of these stand the 10th and 90th percentile of the ratios of single rounds. On one thread, time
is the processor's, on several the clock's. A training step is forward, backward and AdamW. Memory is the largest
resident size of a fresh process that does the same twice, less what it held before (Linux only).

The tables are those of docs/explanation/pruning_cost.md.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESET, machine_facts, resident
from torch import nn

from hcoatnet.files import write_json
from hcoatnet.models import registry

CLASSES = 6
BATCHES = {"latency_1": 1, "latency_16": 16, "step_16": 16}


@dataclass(frozen=True)
class Subject:
    """One model that is measured."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)

    def create(self, image_size: int) -> nn.Module:
        torch.manual_seed(0)
        model = registry.create(self.model, CLASSES, image_size, **self.options)
        return model.to(memory_format=torch.channels_last)


def subjects(size: str, image_size: int) -> list[Subject]:
    """The full model, which the others are compared with, then the others."""
    window = f"h_coatnet_window_{size}"
    chosen = [
        Subject(f"h_coatnet_{size}"),
        Subject(f"h_coatnet_{size}", {"importance": "none"}),
        Subject(window),
        Subject(window, {"blocks_before": 2}),
    ]
    if image_size >= 224:  # on smaller maps most shares round to the same window
        chosen += [Subject(window, {"window": share}) for share in ("3/7", "5/7")]
        chosen += [Subject(window, {"window": "3/7", "blocks_before": 2})]
    return chosen


def photos(batch: int, image_size: int) -> torch.Tensor:
    drawn = torch.randn(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    return drawn.contiguous(memory_format=torch.channels_last)


def task(kind: str, model: nn.Module, image_size: int) -> Callable[[], None]:
    """What is timed."""
    batch = BATCHES[kind]
    x = photos(batch, image_size)
    if kind != "step_16":
        model.eval()

        @torch.inference_mode()
        def answer() -> None:
            model(x)

        return answer
    model.train()
    labels = torch.arange(batch) % CLASSES
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()

    return step


def time_in_turns(tasks: list[Callable[[], None]], rounds: int) -> np.ndarray:
    """Seconds (rounds, tasks), after one round that does not count."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = np.empty((rounds + 1, len(tasks)))
    for row in seconds:
        for column, run in enumerate(tasks):
            start = clock()
            run()
            row[column] = clock() - start
    return seconds[1:]


def peak_memory(subject: Subject, image_size: int, threads: int) -> dict[str, int]:
    """Bytes beyond the model and its photos, in a process of its own."""
    if not RESET.exists():
        return {}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory_here, (subject, image_size, threads))


def _peak_memory_here(subject: Subject, image_size: int, threads: int) -> dict[str, int]:
    torch.set_num_threads(threads)
    model = subject.create(image_size)
    peaks = {}
    for kind in ("latency_16", "step_16"):
        run = task(kind, model, image_size)
        before = resident("VmRSS", reset=True)
        run()
        run()
        peaks[kind] = resident("VmHWM") - before
    return peaks


def measure(size: str, image_size: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    """A row for each model of a size, with its throughput relative to the full model."""
    chosen = subjects(size, image_size)
    models = [subject.create(image_size) for subject in chosen]
    seconds = {kind: time_in_turns([task(kind, model, image_size) for model in models], rounds) for kind in BATCHES}
    rows = []
    for column, subject in enumerate(chosen):
        summary = registry.describe(subject.model, image_size, CLASSES, **subject.options)
        rows.append(
            {
                "model": subject.model,
                "options": subject.options,
                "image_size": image_size,
                "parameters": summary.parameters,
                "multiply_adds": summary.multiply_adds,
                "milliseconds": {
                    kind: round(1e3 * float(found[:, column].min()), 2) for kind, found in seconds.items()
                },
                "throughput_ratio": {kind: ratio(found[:, 0], found[:, column]) for kind, found in seconds.items()},
                "peak_memory": peak_memory(subject, image_size, threads),
            }
        )
        print(line(rows[-1]), flush=True)
    return rows


def ratio(full: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Throughput of a model relative to the full one, from the seconds of both in every round."""
    low, high = np.quantile(full / other, (0.1, 0.9))
    found = {"value": full.min() / other.min(), "low": low, "high": high}
    return {name: round(float(value), 3) for name, value in found.items()}


def line(row: dict[str, Any]) -> str:
    options = " ".join(f"{name}={value}" for name, value in row["options"].items())
    ratios = "  ".join(
        f"{kind} {row['milliseconds'][kind]} ms {found['value']:.2f}× ({found['low']:.2f}–{found['high']:.2f})"
        for kind, found in row["throughput_ratio"].items()
    )
    memory = "  ".join(f"{kind} {peak / 2**20:.0f} MiB" for kind, peak in row["peak_memory"].items())
    return f"{row['model']} {options} {row['image_size']}: {row['multiply_adds'] / 1e9:.3f} G  {ratios}  {memory}"


def tables(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """The Markdown tables of the page: without cuts, and with a window; throughput relative to the full model."""
    uncut = ["| model | photo | multiply-adds | one photo | 16 photos | training step |", "|---|---|---|---|---|---|"]
    window = [
        "| model | photo | multiply-adds | one photo | 16 photos | training step | memory of a step |",
        "|---|---|---|---|---|---|---|",
    ]
    full = rows[0]
    for row in rows:
        cells = [str(row["image_size"]), f"{row['multiply_adds'] / 1e9:.3f} G"]
        cells += [f"{found['value']:.2f}" for found in row["throughput_ratio"].values()]
        if "window" in row["model"]:
            options = ", ".join(f"{name}={value}" for name, value in row["options"].items())
            cells.append(f"{row['peak_memory']['step_16'] / full['peak_memory']['step_16']:.2f}")
            window.append(f"| {row['model']} {options} | {' | '.join(cells)} |".replace("  ", " "))
        elif row["options"]:
            uncut.append(f"| {row['model']}, no cuts | {' | '.join(cells)} |")
        else:
            full = row
            uncut.append(f"| {row['model']} | {' | '.join(cells)} |")
    return "\n".join(uncut), "\n".join(window)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny:224", "atto:224", "atto:160", "atto:128", "atto:96"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tables", type=Path, help="print the tables of such a file and measure nothing")
    arguments = parser.parse_args()
    if arguments.tables:
        print(*tables(json.loads(arguments.tables.read_text(encoding="utf-8"))["rows"]), sep="\n\n")
        return
    torch.set_num_threads(arguments.threads)
    machine = machine_facts(arguments.threads)
    rows = []
    for item in arguments.sizes:
        size, image_size = item.split(":")
        rows += measure(size, int(image_size), arguments.rounds, arguments.threads)
    if arguments.out:
        content = {
            "machine": machine,
            "rounds": arguments.rounds,
            "batches": BATCHES,
            "rows": rows,
        }
        write_json(arguments.out, content)


if __name__ == "__main__":
    main()
