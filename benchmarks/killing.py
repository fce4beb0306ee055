"""Attempts at a command that end in SIGKILL: at some moment, or inside the n-th operation on a file.

An attempt is a fork of this process, which has loaded everything already, so that it costs no start-up. A trap stands
in the fork between the package and the system: it counts what creates, writes, flushes or moves files below a folder,
and springs at one of these operations. A write is cut in half first.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

LOOK_EVERY = 0.004
"""Seconds between two looks at an attempt that is to be killed."""

TICK = 1 / os.sysconf("SC_CLK_TCK")
CRASHED = 70
"""Exit code of an attempt that ended with a traceback."""

Half = Callable[[], Any]
Spring = Callable[[int, str, Path, Half], None]
"""Called before each operation with its number from 1, its kind, the file, and a function that does half of a write."""


class Trap:
    """Stands before the operations that change files below a folder.

    Args:
        folder: The folder.
        spring: What is called before each; it kills, raises, or lets pass.
    """

    def __init__(self, folder: Path, spring: Spring) -> None:
        self.root = folder.resolve()
        self.spring = spring
        self.operations = 0
        self.real = SimpleNamespace(open=os.open, write=os.write, fsync=os.fsync, stream=io.open)

    @contextmanager
    def set(self) -> Iterator[None]:
        """Have the trap in place while the context lasts."""
        watched = {"open": self._open, "write": self._write, "fsync": self._fsync, "mkdir": self._mkdir(os.mkdir)}
        watched |= {name: self._move(getattr(os, name)) for name in ("replace", "rename")}
        with ExitStack() as stack:
            for name, function in watched.items():
                stack.enter_context(mock.patch.object(os, name, function))
            stack.enter_context(mock.patch.object(io, "open", self._stream))
            yield

    def _visit(self, kind: str, path: Any, half: Half = lambda: None) -> None:
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        full = Path.cwd() / path
        if full.is_relative_to(self.root):
            self.operations += 1
            self.spring(self.operations, kind, full, half)

    def _stream(self, file: Any, mode: str = "r", buffering: int = -1, *text: Any, **named: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return self.real.stream(file, mode, buffering, *text, **named)
        if not Path(file).exists():
            self._visit("create", file)
        raw = _Watched(os.fspath(file), mode.replace("b", "").replace("t", ""))
        raw.visit = self._visit
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *text, **named)

    def _open(self, path: Any, flags: int, *others: Any, **named: Any) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            self._visit("create", path)
        return int(self.real.open(path, flags, *others, **named))

    def _write(self, handle: int, content: bytes) -> int:
        self._visit("append", handle, lambda: self.real.write(handle, content[: len(content) // 2]))
        return int(self.real.write(handle, content))

    def _fsync(self, handle: int) -> None:
        self._visit("flush", handle)
        self.real.fsync(handle)

    def _mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def mkdir(path: Any, *others: Any, **named: Any) -> None:
            if not Path(path).exists():
                self._visit("create", path)
            real(path, *others, **named)

        return mkdir

    def _move(self, real: Callable[..., None]) -> Callable[..., None]:
        def move(source: Any, target: Any, **named: Any) -> None:
            self._visit("move", target)
            real(source, target, **named)

        return move


class _Watched(io.FileIO):
    """A file whose writes are visited."""

    visit: Callable[..., None]

    def write(self, content: Any) -> int:
        data = bytes(content)
        self.visit("write", self.fileno(), lambda: io.FileIO.write(self, data[: len(data) // 2]))
        return super().write(data)


@dataclass(frozen=True)
class Attempt:
    """How an attempt ended.

    Attributes:
        code: Its exit code; below 0 the signal that killed it.
        seconds: How long it took by the clock.
        processor: Processor seconds.
        operations: Operations on files until its end, where there was a trap.
        inside: Kind of the operation in which the trap sprang and the file's path; None where it did not.
        printed: What it said.
    """

    code: int
    seconds: float
    processor: float
    operations: int
    inside: tuple[str, Path] | None
    printed: str

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL


def attempt(
    command: Callable[[], int],
    folder: Path,
    *,
    operation: int | None = None,
    processor: float | None = None,
    seconds: float | None = None,
    kill: Callable[[int], None] = lambda pid: os.kill(pid, signal.SIGKILL),
) -> Attempt:
    """Fork, run ``command`` there, and kill it at the one place that is named, or let it come to its end.

    Args:
        command: Gives the exit code.
        folder: Operations on files below it are counted.
        operation: Die inside the operation of this number.
        processor: Kill it when it has used so many seconds of processor time.
        seconds: Kill it after so many seconds by the clock.
        kill: Kills whom it likes, given the number of the process.
    """
    with tempfile.TemporaryFile("w+b") as printed, tempfile.TemporaryFile("w+b") as noted:
        started = time.monotonic()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _child(command, folder, operation, printed.fileno(), noted.fileno())
        status, used = _wait(pid, started, processor, seconds, kill)
        printed.seek(0)
        noted.seek(0)
        operations, kind, path = (*noted.read().decode().split("\n"), "", "")[:3]
        return Attempt(
            code=os.waitstatus_to_exitcode(status),
            seconds=time.monotonic() - started,
            processor=used,
            operations=int(operations or 0),
            inside=(kind, Path(path)) if kind else None,
            printed=printed.read().decode(errors="replace"),
        )


def _wait(
    pid: int, started: float, processor: float | None, seconds: float | None, kill: Callable[[int], None]
) -> tuple[int, float]:
    while True:
        ended, status, used = os.wait4(pid, 0 if processor is None and seconds is None else os.WNOHANG)
        if ended:
            return status, used.ru_utime + used.ru_stime
        late = seconds is not None and time.monotonic() - started >= seconds
        if late or (processor is not None and processor_seconds(pid) >= processor):
            kill(pid)
            processor = seconds = None
        time.sleep(LOOK_EVERY)


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def _child(command: Callable[[], int], folder: Path, operation: int | None, printed: int, noted: int) -> NoReturn:
    write = os.write
    code = CRASHED
    try:
        for stream in (1, 2):
            os.dup2(printed, stream)

        def spring(number: int, kind: str, path: Path, half: Half) -> None:
            if number == operation:
                half()
                write(noted, f"{number}\n{kind}\n{path}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

        trap = Trap(folder, spring)
        with trap.set():
            code = command()
        write(noted, str(trap.operations).encode())
    except BaseException:
        write(2, traceback.format_exc().encode())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class ForkedProcess:
    """What ``subprocess.Popen`` is to a cell of a study, without the start of an interpreter.

    It runs the cell's own ``main`` on the pipes that the study gives it, in a session of its own.
    """

    pid_file: Path
    """Where the number of the latest process is written."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: dict[str, str], **_: Any) -> None:
        from hcoatnet.study import cell

        assert command[-1] == "hcoatnet.study.cell"
        (given, giving), (reading, said) = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code: Any = CRASHED
            try:
                os.setsid()
                os.chdir(cwd)
                for handle, place in ((given, 0), (os.open(os.devnull, os.O_WRONLY), 1), (said, 2)):
                    os.dup2(handle, place)
                os.close(giving)  # the study's own ends, of one cell at a time
                os.close(reading)
                os.environ.update(env)
                cell.main()
            except SystemExit as stop:
                code = stop.code
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code or 0)
        os.close(given)
        os.close(said)
        self.pid_file.write_text(str(self.pid))
        self.stdin, self.stderr = os.fdopen(giving, "wb"), os.fdopen(reading, "rb")

    def wait(self) -> int:
        """Wait for its end."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


@contextmanager
def forked_cells(pid_file: Path) -> Iterator[None]:
    """While the context lasts, a study of this process forks its cells, and notes the latest one's number."""
    from hcoatnet.study import cell

    ForkedProcess.pid_file = pid_file
    stand_in = SimpleNamespace(Popen=ForkedProcess, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    with mock.patch.object(cell, "subprocess", stand_in):
        yield


def wait_until_gone(pid: int, patience: float = 120) -> None:
    """Wait for the end of a process that is no child of this one.

    Raises:
        TimeoutError: It is still there.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise TimeoutError(f"Process {pid} has not ended within {patience} s.")
