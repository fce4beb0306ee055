"""What int8 costs and gains: trained runs exported with ``--int8``, compared with float32 and timed beside it.

    python benchmarks/int8.py STUDY/runs/*-f0 --out docs/results/int8.json

Each run, one of a model, passes the gate of ``hcoatnet export --int8`` or is listed with what its message says. Times
are processor times of one thread for one photo at a time: torch, ONNX Runtime in float32 and in int8 take turns, and
the least of the rounds counts, so that other programs on the machine do little harm.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from machine import machine_facts

from hcoatnet.deploy.onnx_backend import OnnxBackend
from hcoatnet.deploy.run_export import export_run
from hcoatnet.deploy.torch_backend import TorchBackend
from hcoatnet.errors import BundleError
from hcoatnet.files import write_json
from hcoatnet.training.run_directory import RunDirectory

PHOTOS = 20


def least_times(
    contestants: Mapping[str, Callable[[np.ndarray], Any]], photos: np.ndarray, rounds: int
) -> dict[str, float]:
    """Processor seconds that each needs for all photos, one at a time: the least of rounds in which they take turns."""
    least = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, run in contestants.items():
            started = time.process_time()
            for photo in photos:
                run(photo[None])
            least[name] = min(least[name], time.process_time() - started)
    return least


def examine(run: Path, rounds: int) -> dict[str, Any]:
    """One run, exported twice."""
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        export_run(run, exact)
        try:
            agreement = export_run(run, small, int8=True).agreement
        except BundleError as error:
            return {"refused": str(error)}
        assert agreement is not None
        backend = TorchBackend.of_run(run)
        size = OnnxBackend.open(exact).metadata["image_size"]
        photos = np.random.default_rng(0).normal(size=(PHOTOS, 3, size, size)).astype(np.float32)
        runs = {"torch": backend.run, **{p.stem: OnnxBackend.open(p, threads=1).run for p in (exact, small)}}
        times = least_times(runs, photos, rounds)
    return {
        **asdict(agreement),
        "change_of_macro_f1": agreement.change,
        "int8_to_float32": times["int8"] / times["float32"],
        "float32_to_torch": times["float32"] / times["torch"],
    }


def main() -> None:
    """Examine runs and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for run in asked.runs:
        model = RunDirectory(run).settings().model
        rows[model] = examine(run, asked.rounds)
        print(model, rows[model], flush=True)
    write_json(asked.out, {"rows": rows, "machine": machine_facts(threads=1)})


if __name__ == "__main__":
    main()
