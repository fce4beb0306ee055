"""One cell of a study: ``hcoatnet train`` in a process of its own, which ends when the process that started it does.

The parent writes the settings as one line of JSON to the child's standard input and keeps that pipe open. When the pipe
closes, because the parent wants the cell to stop or because it is gone, however it went, the child stops itself as
SIGTERM would stop it: at the next epoch's replay nothing is lost.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from hcoatnet.config import TrainConfig
from hcoatnet.threads import spin_briefly

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

LAST_LINES = 40

STOP_PATIENCE = 30
"""Seconds after which a cell that was asked to stop ends at once."""

ORPHAN_PATIENCE = 2 * STOP_PATIENCE
"""Seconds that a cell waits for another process in its run directory, such as an orphan that is about to end."""


@dataclass(frozen=True)
class Outcome:
    """How the process of a cell ended.

    Attributes:
        cell: Its name.
        state: ``interrupted`` where it was asked to stop.
        seconds: How long it took.
        message: Its last error line, or nothing.
    """

    cell: str
    state: Literal["finished", "failed", "interrupted"]
    seconds: float
    message: str


class Lifelines:
    """The open pipes of the cells that run now, to be closed all at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pipes: set[IO[bytes]] = set()
        self.stopped = False

    @contextmanager
    def holding(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Keep the pipe of a process open while the context lasts; afterwards the process is gone."""
        pipe = process.stdin
        assert pipe is not None
        with self._changed:
            self._pipes.add(pipe)
            stopped = self.stopped
        try:
            if stopped:
                _close(pipe)
            yield
        finally:
            _close(pipe)
            process.wait()
            with self._changed:
                self._pipes.discard(pipe)
                self._changed.notify_all()

    def stop(self) -> None:
        """Ask every cell to stop, now and from now on, and wait until all are gone."""
        with self._changed:
            self.stopped = True
            for pipe in self._pipes:
                _close(pipe)
            self._changed.wait_for(lambda: not self._pipes)


def run_cell(name: str, settings: Mapping[str, Any], folder: Path, threads: int, lifelines: Lifelines) -> Outcome:
    """Train one cell in a process of its own and wait for it.

    Args:
        name: Its name.
        settings: From :func:`plain_settings`.
        folder: Working directory, from which the paths in ``settings`` are seen.
        threads: Threads that it may compute with.
        lifelines: Where its pipe is kept open.
    """
    started = time.monotonic()
    if lifelines.stopped:
        return Outcome(name, "interrupted", 0.0, "")
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    spin_briefly(environment)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hcoatnet.study.cell"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the study only, which then stops its cells
        )
    except OSError as error:
        return Outcome(name, "failed", 0.0, f"cannot be started: {error.strerror}")
    assert process.stdin is not None and process.stderr is not None
    with process.stderr, lifelines.holding(process):
        with suppress(OSError, ValueError):  # where it is gone or was asked to stop, its exit code says so
            process.stdin.write(json.dumps({"settings": dict(settings), "threads": threads}).encode() + b"\n")
            process.stdin.flush()
        lines = deque((line.decode(errors="replace").rstrip() for line in process.stderr), maxlen=LAST_LINES)
    code = process.returncode
    seconds = round(time.monotonic() - started, 1)
    if code == 0:
        return Outcome(name, "finished", seconds, "")
    if lifelines.stopped:
        return Outcome(name, "interrupted", seconds, "")
    return Outcome(name, "failed", seconds, _last_error(list(lines), code))


def plain_settings(config: TrainConfig) -> dict[str, Any]:
    """Settings as JSON can hold them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}


def main() -> None:
    """The cell's process: read the settings, watch the pipe, train."""
    text = _read_line()
    threading.Thread(target=_stop_at_the_end_of_the_pipe, daemon=True).start()
    given = json.loads(text)

    from cyclopts import App

    from hcoatnet.cli import run

    def train_cell() -> None:
        import torch

        from hcoatnet.commands.training import run_training
        from hcoatnet.config import resolve_config
        from hcoatnet.training.run_directory import RunDirectory

        torch.set_num_threads(given["threads"])
        config = resolve_config(given["settings"])
        assert config.out is not None
        _wait_for_orphan(RunDirectory(config.out))
        run_training(config)

    sys.exit(run(App(default_command=train_cell, result_action="return_value"), []))


def _close(pipe: IO[bytes]) -> None:
    with suppress(OSError):  # the process was gone before it had read everything
        pipe.close()


def _wait_for_orphan(run: Any) -> None:
    deadline = time.monotonic() + ORPHAN_PATIENCE
    while run.busy and time.monotonic() < deadline:
        time.sleep(0.5)


def _read_line() -> bytes:
    """The first line of standard input, unbuffered: Python's own reader would hold a lock at the process's end."""
    text = bytearray()
    while not text.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            sys.exit(143)
        text += part
    return bytes(text)


def _stop_at_the_end_of_the_pipe() -> None:
    while os.read(0, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_PATIENCE)
    os._exit(143)


def _last_error(lines: list[str], code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    told = [line for line in lines if line.startswith("Error:")] or [line for line in lines if line]
    return told[-1].removeprefix("Error: ") if told else f"exit code {code}"


if __name__ == "__main__":
    main()
