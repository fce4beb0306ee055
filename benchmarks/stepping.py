"""Contestant: optimiser steps on photos that lie ready, in one of the ways to compute them.

    python benchmarks/stepping.py --model convnext_atto --image-size 128 --way bf16

``float32``; ``bf16``, under autocast as torch computes it; ``products``, the same with depthwise convolutions and
attention by matrix products, as `hcoatnet train` does on a CPU; ``compiled``, that with torch.compile.
"""

import argparse
from contextlib import nullcontext
from typing import Any

from contestant import Pace, Stopwatch

WAYS = ("float32", "bf16", "products", "compiled")
CLASSES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="h_coatnet_atto")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--steps", type=int, default=6, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paced", action="store_true")
    given = parser.parse_args()
    pace = Pace(given.paced)
    import torch
    from torch.nn.functional import cross_entropy

    from hcoatnet.config import resolve_config
    from hcoatnet.models import registry
    from hcoatnet.training.matrix_products import MatrixProducts
    from hcoatnet.training.optimisation import build_optimizer

    torch.manual_seed(0)
    config = resolve_config({"model": given.model, "image_size": given.image_size})
    model = registry.create(given.model, CLASSES, given.image_size).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, config)
    forward: Any = torch.compile(model, dynamic=False) if given.way == "compiled" else model
    photos = torch.randn(given.batch_size, 3, given.image_size, given.image_size)
    photos = photos.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(given.batch_size) % CLASSES

    def step() -> None:
        low = torch.autocast("cpu", torch.bfloat16, enabled=given.way != "float32")
        with low, MatrixProducts() if given.way in ("products", "compiled") else nullcontext():
            loss = cross_entropy(forward(photos).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(2):
        step()
    pace.report(ready=True)
    for _ in range(given.rounds):
        pace.wait()
        watch = Stopwatch()
        for _ in range(given.steps):
            step()
        wall, processor = (seconds / given.steps for seconds in watch.read())
        pace.report(seconds=wall, processor_seconds=processor)


if __name__ == "__main__":
    main()
