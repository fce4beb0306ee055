"""Full disks, folders that cannot be written, photos that vanish or change: one message, and nothing is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import flags
from hcoatnet import files

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from killing import Trap

SMALL = {"model": "test_convnext", "image_size": 32, "epochs": 2, "batch_size": 16, "device": "cpu", "workers": 0,
         "precision": "fp32", "evaluate_test": False}  # fmt: skip
UNCACHED = {**SMALL, "cache": False}
SAME = ("weights.safetensors", "predictions_val.csv", "calibration.json", "split.csv")


class Undisturbed(NamedTuple):
    folder: Path
    operations: int

    def equals(self, run):
        return all((run / name).read_bytes() == (self.folder / name).read_bytes() for name in SAME)


def refused(result, *words):
    code, printed = result
    flat = " ".join(printed.split())
    assert code == 2, printed
    assert "Traceback" not in printed
    assert printed.count("Error:") == 1, printed
    for word in words:
        assert word in flat, printed


@contextmanager
def failing(folder, number, kinds=("create", "write", "append"), reason=errno.ENOSPC):
    """From the ``number``-th operation of these kinds on, files below ``folder`` cannot be written; half of one is."""
    met = 0

    def spring(_, kind, path, half):
        nonlocal met
        met += kind in kinds
        if kind in kinds and met >= number:
            half()
            name = (str(path),) if kind == "create" else ()  # the system names what it opens, not what it writes
            raise OSError(reason, os.strerror(reason), *name)

    with Trap(folder, spring).set():
        yield


@pytest.fixture(scope="module")
def undisturbed(manifest_file, tmp_path_factory):
    """A run that met no trouble, and how many times it creates, writes or appends."""
    from hcoatnet.cli import app, run

    out = tmp_path_factory.mktemp("undisturbed") / "run"
    seen = []

    def count(_, kind, path, half):
        seen.append(kind)

    out.mkdir()
    with Trap(out, count).set():
        assert run(app, ["train", "--data", str(manifest_file), "--out", str(out), *flags(UNCACHED)]) == 0
    return Undisturbed(out, sum(kind in ("create", "write", "append") for kind in seen))


def check_full_disk(hcoatnet, undisturbed, manifest_file, out, number):
    train = ["train", "--data", manifest_file, "--out", out, *flags(UNCACHED)]
    out.mkdir(exist_ok=True)
    with failing(out, number):
        result = hcoatnet(*train)
    refused(result, "No space left on device", f"{out}{os.sep}", "--resume auto")
    assert not list(out.rglob(".*.tmp"))
    code, printed = hcoatnet(*train, "--resume", "auto")
    assert code == 0, printed
    assert undisturbed.equals(out)
    assert (out / "history.csv").read_text().count("\n") == 3


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_disk_that_fills_up_loses_nothing(hcoatnet, undisturbed, manifest_file, tmp_path, share):
    check_full_disk(hcoatnet, undisturbed, manifest_file, tmp_path / "run", round(share * undisturbed.operations))


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_write_loses_nothing(hcoatnet, undisturbed, manifest_file, tmp_path):
    assert undisturbed.operations > 30
    for number in range(1, undisturbed.operations + 1):
        check_full_disk(hcoatnet, undisturbed, manifest_file, tmp_path / str(number), number)


def test_a_line_that_the_disk_has_no_room_for_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    files.append_line(path, json.dumps({"a": 1}))
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:4]))
    with pytest.raises(OSError, match=r"No space left on device.*ledger\.jsonl"):
        files.append_line(path, json.dumps({"a": 2}))
    monkeypatch.undo()
    files.append_line(path, json.dumps({"a": 3}))
    assert files.read_json_lines(path) == [{"a": 1}, {"a": 3}]


@contextmanager
def mounted(folder, *options):
    """A file system in memory at ``folder``, where this process may mount one."""
    folder.mkdir(exist_ok=True)
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("only root can mount, and not in every container")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_real_full_disk_loses_nothing(hcoatnet, undisturbed, manifest_file, tmp_path):
    disk = tmp_path / "disk"
    with mounted(disk):
        (disk / "ballast").write_bytes(b"x" * 500_000)  # weights: 0.8 MB, state: 2.5 MB
        train = ["train", "--data", manifest_file, "--out", disk / "run", *flags(UNCACHED)]
        refused(hcoatnet(*train), "No space left on device", str(disk / "run"))
        assert not list(disk.rglob(".*.tmp"))
        assert (disk / "run" / "weights.safetensors").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert hcoatnet(*train, "--resume", "auto")[0] == 0
        assert undisturbed.equals(disk / "run")


@pytest.mark.slow
def test_a_disk_that_turns_read_only_loses_nothing(hcoatnet, undisturbed, manifest_file, tmp_path, monkeypatch):
    from hcoatnet.training import loop

    disk = tmp_path / "disk"
    append = loop.append_history

    def turn(path, row):
        append(path, row)
        subprocess.run(["mount", "--bind", "-o", "ro", disk, disk], check=True)  # over the one that holds open files

    with mounted(disk):
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        train = ["train", "--data", manifest_file, "--out", disk / "run", *flags(UNCACHED)]
        monkeypatch.setattr(loop, "append_history", turn)
        refused(hcoatnet(*train), "Read-only file system", str(disk / "run"), "--resume auto")
        refused(hcoatnet(*train, "--resume", "auto"), "Read-only file system")
        monkeypatch.undo()
        subprocess.run(["umount", "-l", disk], check=True)
        code, printed = hcoatnet(*train, "--resume", "auto")
        assert code == 0, printed
        assert "Continuing after epoch 1 of 2" in printed
        assert undisturbed.equals(disk / "run")


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_named(hcoatnet, manifest_file, tmp_path, reason):
    out = tmp_path / "runs" / "run"
    out.parent.mkdir()
    with failing(out.parent, 1, ("create",), reason):
        result = hcoatnet("train", "--data", manifest_file, "--out", out, *flags(UNCACHED))
    refused(result, os.strerror(reason), str(out))
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_permissions_are_obeyed_by_a_process_that_has_no_special_rights(manifest_file, tmp_path):
    """The superuser ignores them, unless it gives its rights away."""
    rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if rights and not shutil.which(rights[0]):
        pytest.skip("setpriv is not installed")
    locked, out = tmp_path / "locked", tmp_path / "open" / "run"
    locked.mkdir()
    shutil.copytree(manifest_file.parent, tmp_path / "photos")
    locked.chmod(0o555)

    def train(data, place, *more):
        command = [
            *rights,
            sys.executable,
            "-m",
            "hcoatnet",
            "train",
            "--data",
            data,
            "--out",
            place,
            *flags(UNCACHED),
            *more,
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
        return done.returncode, done.stdout + done.stderr

    data = tmp_path / "photos" / "manifest.csv"
    refused(train(data, locked / "run"), "Permission denied", str(locked / "run"))
    photo = tmp_path / "photos" / "red" / "p3_0.png"
    photo.chmod(0)
    refused(train(data, out), "red/p3_0.png", "Permission denied")
    photo.chmod(0o644)
    code, printed = train(data, out, "--resume", "auto")
    assert code == 0, printed


@pytest.fixture
def own_photos(manifest_file, tmp_path):
    shutil.copytree(manifest_file.parent, tmp_path / "photos", ignore=shutil.ignore_patterns(".hcoatnet-cache"))
    return tmp_path / "photos" / "manifest.csv"


@pytest.mark.parametrize(("what", "words"), [("vanished", ["no such file"]), ("changed", ["changed since", "SHA-256"])])
def test_a_photo_that_vanishes_or_changes_in_training_is_named(
    hcoatnet, undisturbed, own_photos, tmp_path, monkeypatch, what, words
):
    from hcoatnet.training import loop

    out = tmp_path / "run"
    rows = (undisturbed.folder / "split.csv").read_text().splitlines()
    name, other = [row.split(",")[0] for row in rows if row.endswith(",train")][:2]
    photo = own_photos.parent / name
    content = photo.read_bytes()
    append = loop.append_history

    def spoil(path, row):
        append(path, row)
        photo.unlink()
        if what == "changed":
            shutil.copy(own_photos.parent / other, photo)

    monkeypatch.setattr(loop, "append_history", spoil)
    train = ["train", "--data", own_photos, "--out", out, *flags(UNCACHED)]
    refused(hcoatnet(*train), name, *words)
    monkeypatch.undo()
    assert name in (out / "log.txt").read_text()
    checkpoint = (out / "state.pt").read_bytes()
    refused(hcoatnet(*train, "--resume", "auto"), name, *words)
    assert (out / "state.pt").read_bytes() == checkpoint
    photo.write_bytes(content)
    code, printed = hcoatnet(*train, "--resume", "auto")
    assert code == 0, printed
    assert "Continuing after epoch 1 of 2" in printed
    assert undisturbed.equals(out)


@pytest.mark.slow
def test_of_two_processes_that_begin_the_same_run_one_is_refused(manifest_file, undisturbed, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "hcoatnet", "train", "--data", manifest_file, "--out", out, *flags(UNCACHED)]
    start = lambda: subprocess.Popen(  # noqa: E731
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    both = [start(), start()]
    printed = [process.communicate(timeout=600) for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], printed
    (error,) = [one[1] for one, process in zip(printed, both, strict=True) if process.returncode]
    assert error.count("Error:") == 1
    assert "Another process is training in" in error or "holds a run already" in error
    assert undisturbed.equals(out)
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 2
