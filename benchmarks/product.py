"""Contestant: training with this package, as ``hcoatnet train`` does it, on photos and split given.

The whole of it runs: reading the manifest, proving the split, the cache, validation, checkpoint and history after each
epoch. Only clocks are put around an epoch, a step and the wait for the next batch. With ``--fixed`` the first batch is
trained on again and again instead, as it lies on the device: what the loop would reach if photos cost nothing.
"""

import argparse
import csv
import os
import sys
import time
from pathlib import Path
from typing import Any

from contestant import Pace, Stopwatch, epoch_facts


class Clocks:
    """Puts clocks around the parts of the training loop, and lets a suite set its pace."""

    def __init__(self, pace: Pace, fixed: bool, multiply_adds: int) -> None:
        self.pace = pace
        self.multiply_adds = multiply_adds
        self.fixed = fixed
        self.epoch = Stopwatch()
        self.training = (0.0, 0.0)
        self.steps = 0.0
        self.waiting = 0.0
        self.batches = self.batch_size = 0
        self.precision = ""
        self.setup: float | None = None

    def install(self) -> None:
        """Replace the loop's parts by the same with a clock around each."""
        from hcoatnet.training import loop

        train_epoch, append_history, batches, step = (
            loop.train_epoch, loop.append_history, loop.batches, loop.Learner.step,
        )  # fmt: skip

        def timed_epoch(learner: Any, material: Any, *rest: Any) -> Any:
            if self.setup is None:
                self.setup = self.epoch.read()[0]
            self.steps = self.waiting = 0.0
            self.batches, self.batch_size = len(material.training), learner.config.batch_size
            self.precision = {"no": "fp32"}.get(mixed := str(learner.accelerator.mixed_precision), mixed)
            watch = Stopwatch()
            work = _fixed_epoch if self.fixed else train_epoch
            found = work(learner, material, *rest)
            _finish_queue(learner.accelerator.device)
            self.training = watch.read()
            return found

        def timed_step(learner: Any, *rest: Any) -> Any:
            started = time.perf_counter()
            found = step(learner, *rest)
            self.steps += time.perf_counter() - started
            return found

        def timed_batches(loader: Any) -> Any:
            stream = iter(batches(loader))
            while True:
                started = time.perf_counter()
                try:
                    batch = next(stream)
                except StopIteration:
                    return
                finally:
                    self.waiting += time.perf_counter() - started
                yield batch

        def paced_history(path: Path, row: Any) -> None:
            append_history(path, row)
            self._report(row)
            self.pace.wait()
            self.epoch = Stopwatch()

        loop.train_epoch, loop.Learner.step = timed_epoch, timed_step  # type: ignore[method-assign]
        loop.batches, loop.append_history = timed_batches, paced_history

    def _report(self, row: Any) -> None:
        losses = row["train_loss"], row["val_loss"], row["val_macro_f1"]
        facts = epoch_facts(row["epoch"], self.setup or 0.0, self.epoch.read(), self.training, *losses)
        if self.fixed:  # every batch is a whole one
            facts["photos"] = self.batches * self.batch_size
        seconds = {"step_seconds": round(self.steps, 4), "waiting_seconds": round(self.waiting, 4)}
        kind = {"precision": self.precision, "multiply_adds": self.multiply_adds}
        self.pace.report(**facts, **seconds, **kind)
        self.setup = 0.0


def _fixed_epoch(learner: Any, material: Any, epoch: int, journal: Any) -> tuple[float, float]:
    """As many steps as an epoch has, all on the first batch."""
    from hcoatnet.training import loop

    learner.prepared.train()
    material.order.epoch = epoch
    groups = loop._groups(learner, material, epoch)
    group = next(groups)
    groups.close()
    steps = -(-len(material.training) // len(group))
    started = time.perf_counter()
    losses = [learner.step(group, material.objective) for _ in range(steps)]
    return sum(float(one) for one in losses) / steps, len(material.order) / (time.perf_counter() - started)


def multiply_adds(config: Any) -> int:
    """Of one photo's forward pass."""
    from hcoatnet.models import registry

    with config.data.open(encoding="utf-8", newline="") as stream:
        classes = len({row["label"] for row in csv.DictReader(stream)})
    return registry.describe(config.model, config.image_size, classes, **config.model_options).multiply_adds


def _finish_queue(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of `train`")
    parser.add_argument("--fixed", action="store_true", help="train on one batch again and again")
    parser.add_argument("--paced", action="store_true")
    given = parser.parse_args()
    pace = Pace(given.paced)
    from hcoatnet.threads import spin_briefly

    spin_briefly(os.environ)  # as the command line does
    import yaml
    from rich.console import Console

    from hcoatnet.config import resolve_config
    from hcoatnet.training.run import train

    settings = {name: yaml.safe_load(value) for name, _, value in (one.partition("=") for one in given.set)}
    place = {"data": given.manifest, "split": given.split, "out": given.out, "evaluate_test": False}
    config = resolve_config({**settings, **place})
    clocks = Clocks(pace, given.fixed, multiply_adds(config))
    clocks.install()
    pace.report(ready=True)
    pace.wait()
    clocks.epoch = Stopwatch()
    train(config, Console(file=sys.stderr))


if __name__ == "__main__":
    main()
