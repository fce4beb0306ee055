"""Kill training, studies, reports and bundles at random moments, and see whether anything is ever lost or half there.

    python benchmarks/crash_safety.py --out docs/results/crash_safety.json

Every kill is a SIGKILL of a process at work: half of them when it has used a random share of the processor time that an
undisturbed one takes (a study: of the time by the clock), half inside a random one of its operations on files, a write
being cut in half first. After each kill every file is read to its end. Each run is killed several times and continued
until it is finished; then it must equal a run that was never disturbed, bit for bit but for times, and no temporary
file may be left. The undisturbed run is made by the ordinary command in a process of its own.

The photos are drawn, the model is tiny, and all is seeded, but the moments depend on the machine, too.
"""

import argparse
import contextlib
import csv
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # a process with threads of its own cannot be forked
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from killing import Attempt, attempt, forked_cells, wait_until_gone  # noqa: E402
from machine import machine_facts  # noqa: E402
from PIL import Image  # noqa: E402
from same_runs import check_cache, compare_runs  # noqa: E402
from whole_files import Findings, look_at  # noqa: E402

from hcoatnet.cli import app, run  # noqa: E402
from hcoatnet.files import write_json  # noqa: E402

RECIPE = (
    "--image-size", "32", "--epochs", "4", "--batch-size", "6", "--device", "cpu", "--precision", "fp32", "--workers",
    "0", "--deterministic", "--ema", "0.9", "--mixup", "0.2", "--dropout", "0.3", "--drop-path", "0.1",
)  # fmt: skip
MODEL = ("--model", "test_convnext")
KILLS_PER_RUN = 4
KILLS = {"training": 100, "study": 18, "report": 20, "bundle": 12}
CHANGING = ("weights.safetensors", "state.pt", "history.csv", "log.txt")
"""Files of a run that hold something else after each epoch; all others are written once."""

TWO_DAYS = 2 * 24 * 60 * 60


@dataclass
class Tally:
    """What became of one kind of work.

    Attributes:
        kills: Processes killed.
        inside: Of these, inside an operation on a file, by its kind.
        files: Of these again, by the file's name.
        phases: All kills by what the directory held then.
        attempts: Processes started.
        finished: Runs that were continued to their end and compared with an undisturbed one.
        files_read: Files read to their end, after kills and at the end.
        leftovers: Temporary files and folders found after kills.
        torn: Append-only files whose last line was torn.
        problems: Files that were not whole, leftovers that stayed, commands that failed.
        differences: What was unlike an undisturbed run.
    """

    kills: int = 0
    inside: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    finished: int = 0
    files_read: int = 0
    leftovers: int = 0
    torn: int = 0
    problems: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def count(self, done: Attempt, phase: str) -> None:
        """Count a kill."""
        self.kills += 1
        self.phases[phase] += 1
        if done.inside is not None:
            kind, path = done.inside
            self.inside[kind] += 1
            self.files[plain_name(path)] += 1

    def take(self, found: Findings) -> None:
        """Count what a look at a directory found."""
        self.files_read += found.files
        self.leftovers += len(found.leftovers)
        self.torn += len(found.torn)
        self.problems += found.problems

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        counters = {name: dict(getattr(self, name).most_common()) for name in ("phases", "inside", "files")}
        return {**vars(self), **counters}


@dataclass(frozen=True)
class Reference:
    """Undisturbed work.

    Attributes:
        folder: Where its files lie.
        same: Files that have the same bytes whenever it is done.
        names: All its files.
        whole: A fork of it that came to its end, for its time and operations.
    """

    folder: Path
    same: dict[str, bytes]
    names: frozenset[str]
    whole: Attempt


def plain_name(path: Path) -> str:
    """Name of the file that a temporary one was to become."""
    parts = path.name.split(".")
    return ".".join(parts[1:-2]) if path.name.endswith(".tmp") else path.name


def command(*tokens: object) -> Callable[[], int]:
    """A command line of the package, to be run in this process or a fork of it."""
    return lambda: run(app, [str(token) for token in tokens])


def quietly(work: Callable[[], int]) -> None:
    """Run a command in this process, which thereby loads what it needs."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if work():
            raise RuntimeError(printed.getvalue())


def draw_photos(folder: Path) -> Path:
    """Eight noisy photos of each of three colours, and their manifest."""
    rng = np.random.default_rng(0)
    for name, colour in {"blue": (60, 70, 170), "green": (60, 150, 70), "red": (170, 60, 60)}.items():
        (folder / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.clip(rng.normal(colour, 60, size=(40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    quietly(command("data", "scan", folder, "--out", folder / "manifest.csv"))
    return folder / "manifest.csv"


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder but locks, by their relative names."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def reference_of(folder: Path, twin: Path, whole: Attempt) -> Reference:
    """What two undisturbed works have in common."""
    one, other = contents(folder), contents(twin)
    if one.keys() != other.keys():
        raise RuntimeError(f"Two undisturbed works differ in {sorted(one.keys() ^ other.keys())}.\n{whole.printed}")
    same = {name: content for name, content in one.items() if content == other[name]}
    return Reference(folder, same, frozenset(one), whole)


def chosen_moment(draws: random.Random, reference: Reference) -> dict[str, Any]:
    """Where the next process dies."""
    if draws.random() < 0.5:
        return {"processor": draws.uniform(0, reference.whole.processor)}
    return {"operation": draws.randint(1, reference.whole.operations)}


def make_old(paths: Sequence[Path]) -> None:
    """Let leftovers be two days old: they are then nobody's."""
    past = time.time() - TWO_DAYS
    for path in paths:
        os.utime(path, (past, past))


def phase_of(folder: Path) -> str:
    """How far a run has come."""
    if (folder / "metrics.json").exists():
        return "finished"
    if (folder / "predictions_val.csv").exists():
        return "tables, figures, report"
    if (folder / "state.pt").exists():
        return "after the first checkpoint"
    return "first epoch" if (folder / "config.yaml").exists() else "before it has begun"


class Suite:
    """All kinds of work on the same photos.

    Args:
        work: An empty folder.
        seed: Seed of the moments.
        say: Is told what happens.
    """

    def __init__(self, work: Path, seed: int = 0, say: Callable[[str], None] = print) -> None:
        torch.set_num_threads(1)
        self.work = work
        self.draws = random.Random(seed)
        self.say = say
        self.manifest = draw_photos(work / "photos")
        with self.manifest.open(encoding="utf-8", newline="") as stream:
            self.digests = [row["sha256"] for row in csv.DictReader(stream)]
        self.reference = self._undisturbed_run()

    def training(self, kills: int) -> Tally:
        """Kill and continue runs until so many kills are done."""
        tally, reference = Tally(), self.reference
        while tally.kills < kills:
            place = self._new_place("run")
            for _ in range(min(KILLS_PER_RUN, kills - tally.kills)):
                done = attempt(self._train(place), place, **chosen_moment(self.draws, reference))
                tally.attempts += 1
                if not done.killed:
                    break
                tally.count(done, phase_of(place / "run"))
                same = {name: content for name, content in reference.same.items() if name not in CHANGING}
                tally.take(look_at(place / "run", reference.names, same))
                tally.problems += check_cache(place / "cache", reference.folder.parent / "cache", self.digests)
            self._finish(tally, self._train(place), place)
            tally.take(look_at(place / "run", reference.names, reference.same, finished=True))
            tally.problems += stayed(place / "run")
            tally.differences += compare_runs(place / "run", reference.folder)
            self._told("training", tally, place)
        return tally

    def study(self, kills: int) -> Tally:
        """Kill a study, its cell, or both, until so many kills are done."""
        place = self._new_place("study")
        whole = self._complete(attempt(self._study(place), place))
        twin = self._new_place("study")
        self._complete(attempt(self._study(twin), twin))
        reference = reference_of(place / "study", twin / "study", whole)
        same = {n: content for n, content in reference.same.items() if Path(n).name not in CHANGING}
        tally = Tally()
        while tally.kills < kills:
            place = self._new_place("study")
            for _ in range(min(KILLS_PER_RUN, kills - tally.kills)):
                done, victim = self._kill_study(place, whole)
                tally.attempts += 1
                if victim is None:
                    break
                tally.count(done, victim)
                tally.take(look_at(place / "study", reference.names, same))
            self._finish(tally, self._study(place), place)
            tally.take(look_at(place / "study", reference.names, reference.same, finished=True))
            tally.problems += stayed(place / "study")
            for folder in sorted((place / "study" / "runs").iterdir()):
                tally.differences += compare_runs(folder, reference.folder / "runs" / folder.name)
            self._told("study", tally, place)
        return tally

    def report(self, kills: int) -> Tally:
        """Kill the writing of a report of the undisturbed run."""
        return self._rewritten(
            "report", kills, lambda out: command("report", self.reference.folder, "--out", out), None
        )

    def bundle(self, kills: int) -> Tally:
        """Kill the making of a bundle where there is an earlier one, of another licence."""
        earlier = self.work / "earlier"
        quietly(command("bundle", self.reference.folder, earlier, "--licence", "MIT"))
        make = lambda out: command("bundle", self.reference.folder, out, "--licence", "Apache-2.0")  # noqa: E731
        return self._rewritten("bundle", kills, make, earlier)

    def _rewritten(
        self, name: str, kills: int, make: Callable[[Path], Callable[[], int]], earlier: Path | None
    ) -> Tally:
        """Kill what writes a folder, once each, and do it again; only files of an earlier one may be there besides."""
        place = self._new_place(name)
        quietly(make(place / name))
        twin = self._new_place(name)
        whole = self._complete(attempt(make(twin / name), twin))
        reference = reference_of(place / name, twin / name, whole)
        before = {} if earlier is None else contents(earlier)
        tally = Tally()
        while tally.kills < kills:
            place = self._new_place(name)
            out = place / name
            if earlier is not None:
                shutil.copytree(earlier, out)
            done = attempt(make(out), place, **chosen_moment(self.draws, reference))
            tally.attempts += 1
            if done.killed:
                self._look_at_rewritten(tally, done, out, reference, before)
                make_old(look_at(place, ()).leftovers)
            self._finish(tally, make(out), place)
            tally.take(look_at(out, reference.names, reference.same, finished=True))
            tally.problems += stayed(place)
            self._told(name, tally, place)
        return tally

    def _look_at_rewritten(
        self, tally: Tally, done: Attempt, out: Path, reference: Reference, before: dict[str, bytes]
    ) -> None:
        if not before:
            tally.count(done, f"{len(contents(out)) if out.exists() else 0} of {len(reference.names)} files written")
            tally.take(look_at(out, reference.names, reference.same))
        elif contents(out) == before:
            tally.count(done, "the earlier one is there")
            tally.take(look_at(out, tuple(before), before, finished=True))
        elif out.exists():
            tally.count(done, "the new one is there")
            tally.take(look_at(out, reference.names, reference.same, finished=True))
        else:
            tally.count(done, "between two moves")
            if [contents(folder) for folder in out.parent.glob(".*.tmp/old")] != [before]:
                tally.problems.append(f"{out.name}: the earlier one is lost")
        tally.leftovers += len(look_at(out.parent, ()).leftovers)

    def _undisturbed_run(self) -> Reference:
        """One run by the ordinary command, one in this process, one in a fork: all must be equal."""
        place, twin, fork = (self._new_place("run") for _ in range(3))
        tokens = [sys.executable, "-m", "hcoatnet", *map(str, self._tokens(place))]
        done = subprocess.run(tokens, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        quietly(self._train(twin))
        whole = self._complete(attempt(self._train(fork), fork))
        for one in (twin, fork):
            if unlike := list(compare_runs(one / "run", place / "run")):
                raise RuntimeError(f"Undisturbed runs differ in {unlike}.")
        return reference_of(place / "run", twin / "run", whole)

    def _kill_study(self, place: Path, whole: Attempt) -> tuple[Attempt, str | None]:
        """One attempt at a study; who was killed, if anybody."""
        killed: list[str] = []
        cell_file = place / "cell.pid"
        cell_file.unlink(missing_ok=True)

        def kill(pid: int) -> None:
            victim = self.draws.choice(("study", "cell", "study and cell"))
            if "study" in victim:
                os.kill(pid, signal.SIGKILL)
                killed.append("study")
            if "cell" in victim and cell_file.exists():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(cell_file.read_text()), signal.SIGKILL)
                    killed.append("cell")

        aimed = self.draws.random() < 0.5
        moment: dict[str, Any] = {"operation": self.draws.randint(1, 3 * whole.operations)} if aimed else {}
        moment = moment or {"seconds": self.draws.uniform(0, whole.seconds)}
        done = attempt(self._study(place), place / "study", **moment, kill=kill)
        if cell_file.exists():
            wait_until_gone(int(cell_file.read_text()))
        if done.inside is not None:
            killed.append("study" if done.killed else "cell")
        return done, " and ".join(killed) or None

    def _finish(self, tally: Tally, work: Callable[[], int], place: Path) -> None:
        done = attempt(work, place)
        tally.attempts += 1
        tally.finished += 1
        if done.code:
            tally.problems.append(f"could not be continued, exit code {done.code}: {done.printed[-500:]}")

    def _complete(self, done: Attempt) -> Attempt:
        if done.code:
            raise RuntimeError(f"Undisturbed work ended with exit code {done.code}.\n{done.printed}")
        return done

    def _tokens(self, place: Path) -> list[object]:
        return [
            "train", "--data", self.manifest, "--out", place / "run", "--cache-folder", place / "cache", "--resume",
            "auto", *MODEL, *RECIPE,
        ]  # fmt: skip

    def _train(self, place: Path) -> Callable[[], int]:
        return command(*self._tokens(place))

    def _study(self, place: Path) -> Callable[[], int]:
        tokens = ("--models", MODEL[1], "--seeds", "1,2", "--data", self.manifest, "--out", place / "study", *RECIPE)

        def work() -> int:
            with forked_cells(place / "cell.pid"):
                return command("study", "run", *tokens)()

        return work

    def _new_place(self, name: str) -> Path:
        """A new folder, of the same depth for all, so that relative paths in their files are the same."""
        place = self.work / f"{name}-{len(list(self.work.iterdir())):04d}"
        place.mkdir()
        return place

    def _told(self, name: str, tally: Tally, place: Path) -> None:
        faults = len(tally.problems) + len(tally.differences)
        self.say(f"{name}: {tally.kills} kills, {tally.finished} finished, {faults} faults")
        if not faults:
            shutil.rmtree(place)


def stayed(place: Path) -> list[str]:
    """Temporary files that are still there at the end."""
    return [f"{path.relative_to(place)}: stayed" for path in look_at(place, ()).leftovers]


def table(parts: dict[str, Tally]) -> list[str]:
    """For people."""
    heads = ("", "kills", "inside a file operation", "continued to the end", "files read", "not whole", "unlike")
    rows = [
        (name, one.kills, one.inside.total(), one.finished, one.files_read, len(one.problems), len(one.differences))
        for name, one in parts.items()
    ]
    widths = [max(len(str(row[column])) for row in (heads, *rows)) for column in range(len(heads))]
    return [
        "  ".join(str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)
    ]


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0)
    for name, kills in KILLS.items():
        parser.add_argument(f"--{name}", type=int, default=kills, help=f"kills of this kind [default: {kills}]")
    asked = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash-safety-") as work:
        suite = Suite(Path(work), asked.seed, lambda line: print(line, flush=True))
        parts = {name: getattr(suite, name)(getattr(asked, name)) for name in KILLS}
    print("\n".join(table(parts)))
    content = {
        "kills": sum(one.kills for one in parts.values()),
        "faults": sum(len(one.problems) + len(one.differences) for one in parts.values()),
        "seed": asked.seed,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "parts": {name: one.to_dict() for name, one in parts.items()},
        "machine": machine_facts(threads=1),
    }
    write_json(asked.out, content)
    sys.exit(1 if content["faults"] else 0)


if __name__ == "__main__":
    main()
