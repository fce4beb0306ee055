"""Contestant: how many multiply-adds a second the machine reaches at its best, in products of large matrices."""

import argparse

from contestant import Pace, Stopwatch

PRODUCTS = 5
"""Products between two looks at the clock."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--paced", action="store_true")
    given = parser.parse_args()
    pace = Pace(given.paced)
    import torch

    gpu = given.device == "cuda"
    side = 8192 if gpu else 1024
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    matrices = {name: torch.randn(3, side, side, device=given.device).to(kind) for name, kind in kinds.items()}
    for one, other, out in matrices.values():
        torch.mm(one, other, out=out)
    pace.report(ready=True)
    for _ in range(given.rounds):
        pace.wait()
        found = {}
        for name, (one, other, out) in matrices.items():
            watch, best = Stopwatch(), 0.0
            while not best or watch.read()[0] < given.seconds / len(matrices):
                turn = Stopwatch()
                for _ in range(PRODUCTS):
                    torch.mm(one, other, out=out)
                if gpu:
                    torch.cuda.synchronize()
                best = max(best, PRODUCTS * side**3 / turn.read()[0])
            found[name] = best
        pace.report(**found)


if __name__ == "__main__":
    main()
