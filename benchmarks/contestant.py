"""Contestants: processes that each do one round of work when told, so that several can take turns.

A round of every contestant is followed by the next round of every contestant, each round beginning with another one:
what else the machine does hits all of them alike. A contestant is a script of this folder. It gets ``--paced``, says
on standard output that it is ready, waits for a line before each round, and answers with one line of JSON after it.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

FOLDER = Path(__file__).parent
GO = "go\n"
END = 30
"""Seconds that a contestant has to end after its last round."""

LOOK_EVERY = 0.2
"""Seconds between two looks at the memory of a contestant and its workers."""

Report = dict[str, Any]


class ContestantError(Exception):
    """A contestant ended before it had answered."""


class Pace:
    """The contestant's side.

    Args:
        paced: Whether a suite sets the pace; otherwise rounds follow each other and reports are for people.
    """

    def __init__(self, paced: bool) -> None:
        self.paced = paced
        self.answers: IO[str] = sys.stdout
        if paced:
            self.answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
            os.dup2(2, 1)  # what libraries print must not stand between the answers

    def wait(self) -> None:
        """Until the next round may begin; the process ends where there is none."""
        if self.paced and sys.stdin.readline() != GO:
            raise SystemExit(0)

    def report(self, **facts: Any) -> None:
        """Answer."""
        text = json.dumps(facts) if self.paced else "  ".join(f"{key} {value}" for key, value in facts.items())
        print(text, file=self.answers, flush=True)


class Stopwatch:
    """Wall seconds, and processor seconds of this process with all its workers, since it was made."""

    def __init__(self) -> None:
        self.processor = processor_seconds()
        self.clock = time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Wall and processor seconds."""
        return time.perf_counter() - self.clock, processor_seconds() - self.processor


def processor_seconds() -> float:
    """User and system time of this process, of its workers, and of those that have ended."""
    import psutil

    mine = psutil.Process()
    total = 0.0
    for process in [mine, *mine.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_memory() -> float:
    """Largest resident size of this process so far, in MiB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def epoch_facts(
    epoch: int,
    setup: float,
    whole: tuple[float, float],
    training: tuple[float, float],
    train_loss: float,
    val_loss: float,
    macro_f1: float,
) -> Report:
    """What every training says after an epoch.

    Args:
        epoch: Its number, from 1.
        setup: Wall seconds from the imports to the first epoch, in the first epoch; 0 in the others.
        whole: Wall and processor seconds of all of it, setup and validation included.
        training: Wall and processor seconds of its training steps.
        train_loss: A photo's mean.
        val_loss: A photo's mean.
        macro_f1: On the validation photos.
    """
    return {
        "epoch": epoch,
        "setup_seconds": round(setup, 4),
        "seconds": round(whole[0], 4),
        "processor_seconds": round(whole[1], 4),
        "training_seconds": round(training[0], 4),
        "training_processor_seconds": round(training[1], 4),
        "train_loss": round(train_loss, 4),
        "val_loss": round(val_loss, 4),
        "val_macro_f1": round(macro_f1, 4),
        "peak_memory": round(peak_memory(), 1),
    }


def script_arguments(description: str | None) -> argparse.Namespace:
    """The command line of the scripts that this package is compared with."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="convnext_atto")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--augmentation", choices=("mild", "strong"), default="mild")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--paced", action="store_true", help="wait for a line on standard input before each epoch")
    return parser.parse_args()


def last_words(log: str) -> str:
    """The last line that names an error, or else the last line, of what a process said before it ended."""
    lines = [line.strip(" │╭╮╰╯─") for line in log.splitlines()]
    errors = [line for line in lines if re.match(r"(\[rank\d+\]: )?\w*(Error|Exception|Interrupt)\b", line)]
    return (errors or [line for line in lines if line] or [""])[-1]


class Contestant:
    """The suite's side: a running contestant.

    Args:
        name: What it is called in the results.
        command: Script of this folder and its arguments.
        threads: Threads that it may compute with.
        log: File for what it says otherwise.
    """

    def __init__(self, name: str, command: Sequence[str], threads: int, log: Path) -> None:
        self.name = name
        self.log = log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(log.with_suffix(".compiled"), ignore_errors=True)
        limits = {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            # what an earlier run has compiled would make the time to compile look like nothing
            "TORCHINDUCTOR_CACHE_DIR": str(log.with_suffix(".compiled")),
        }
        script, *arguments = command
        self._errors = log.open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / script), *arguments, "--paced"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **limits},
        )

    def answer(self) -> Report:
        """The next answer.

        Raises:
            ContestantError: It ended instead.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            said = last_words(self.log.read_text(encoding="utf-8", errors="replace"))
            raise ContestantError(f"{self.name}: {said or f'exit code {self.process.returncode}'}")
        found: Report = json.loads(line)
        return found

    def round(self, *, watch_memory: bool = False) -> Report:
        """Let it do one round.

        Args:
            watch_memory: Also report ``memory_with_workers``: the largest memory of it and its workers together, in
                MiB, shared pages counted once.
        """
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the reason is in its last words
            self.process.stdin.write(GO)
            self.process.stdin.flush()
        if not watch_memory:
            return self.answer()
        watcher = _MemoryWatcher(self.process.pid)
        watcher.start()
        try:
            found = self.answer()
        finally:
            watcher.stop()
        return {**found, "memory_with_workers": watcher.largest}

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._errors.close()


class _MemoryWatcher(threading.Thread):
    """Looks at the memory of a process and its descendants from time to time."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.largest = 0.0
        self._end = threading.Event()

    def run(self) -> None:
        import psutil

        while not self._end.is_set():
            total = 0.0
            try:
                root = psutil.Process(self.pid)
                family = [root, *root.children(recursive=True)]
            except psutil.Error:
                return
            for process in family:
                try:
                    found = process.memory_full_info()
                except (psutil.Error, OSError):
                    continue
                total += getattr(found, "pss", found.rss) / 2**20
            self.largest = max(self.largest, total)
            self._end.wait(LOOK_EVERY)

    def stop(self) -> None:
        self._end.set()
        self.join()


def alternate(
    entrants: Mapping[str, Sequence[str]],
    rounds: Mapping[str, int] | int,
    threads: int,
    folder: Path,
    *,
    watch_memory: bool = False,
) -> tuple[dict[str, list[Report]], dict[str, str]]:
    """Let all take turns for so many rounds.

    Args:
        entrants: Command of each by its name.
        rounds: Rounds of all, or of each.
        threads: Threads of each.
        folder: For their logs.
        watch_memory: As in :meth:`Contestant.round`.

    Returns:
        The reports of each, and for those that failed the reason instead.
    """
    reports: dict[str, list[Report]] = {}
    failed: dict[str, str] = {}
    running: list[Contestant] = []
    try:
        for name, command in entrants.items():
            log = folder / f"{''.join(c if c.isalnum() else '-' for c in name)}.log"
            contestant = Contestant(name, command, threads, log)
            running.append(contestant)
            try:
                contestant.answer()
            except ContestantError as error:
                failed[name] = str(error)
            else:
                reports[name] = []
        most = {name: rounds if isinstance(rounds, int) else rounds[name] for name in entrants}
        for number in range(max(most.values())):
            turn = number % len(running)
            for contestant in running[turn:] + running[:turn]:
                if contestant.name in failed or number >= most[contestant.name]:
                    continue
                try:
                    reports[contestant.name].append(contestant.round(watch_memory=watch_memory))
                except ContestantError as error:
                    failed[contestant.name] = str(error)
                    del reports[contestant.name]
    finally:
        for contestant in running:
            contestant.close()
    return reports, failed
