"""Contestant: how many multiply-adds a second the machine reaches at its best, in a product of large matrices."""

import argparse

from contestant import Pace, Stopwatch


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
    one, other = (
        torch.randn(side, side, device=given.device).to(torch.bfloat16 if gpu else torch.float32) for _ in "ab"
    )
    out = torch.empty_like(one)
    torch.mm(one, other, out=out)
    pace.report(ready=True)
    for _ in range(given.rounds):
        pace.wait()
        watch, products, best = Stopwatch(), 0, 0.0
        while watch.read()[0] < given.seconds:
            turn = Stopwatch()
            for _ in range(5):
                torch.mm(one, other, out=out)
            if gpu:
                torch.cuda.synchronize()
            products += 5
            best = max(best, 5 * side**3 / turn.read()[0])
        seconds, processor = watch.read()
        pace.report(multiply_adds_a_second=best, mean=products * side**3 / seconds, processor_seconds=processor)


if __name__ == "__main__":
    main()
