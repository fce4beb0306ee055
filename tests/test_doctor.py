"""Every check of the machine says ok on this one, and what is wrong and what to do where it is made to fail."""

import json
import subprocess
import sys
from collections import namedtuple
from email.message import Message
from types import SimpleNamespace

import pytest

from hcoatnet.doctor import examination, hardware, self_test, software, storage
from hcoatnet.doctor.finding import Finding

GB = 10**9
Usage = namedtuple("Usage", "total used free")


def says(finding, status, *words):
    assert finding.status == status, finding
    assert finding.found and "\n" not in finding.found + finding.advice
    assert (status == "ok") or finding.advice.endswith((".", "hcoatnet", "torchvision", "pillow", "]'")), finding
    for word in words:
        assert word in finding.found + " | " + finding.advice, finding


def packages(monkeypatch, versions, needs, python=">=3.11,<3.14", extras=("serve",)):
    """Pretend that these packages are installed, and that hcoatnet needs these."""
    facts = Message()
    facts["Requires-Python"] = python
    for name in extras:
        facts["Provides-Extra"] = name

    def version(name):
        if name not in versions:
            raise software.metadata.PackageNotFoundError(name)
        return versions[name]

    fake = SimpleNamespace(
        metadata=lambda name: facts, requires=needs.get, version=version,
        PackageNotFoundError=software.metadata.PackageNotFoundError,
    )  # fmt: skip
    monkeypatch.setattr(software, "metadata", fake)


def modules(monkeypatch, known):
    """Pretend that these modules can be imported; an error is raised instead."""

    def load(name):
        if isinstance(known[name], Exception):
            raise known[name]
        return known[name]

    monkeypatch.setattr(software, "import_module", load)


def test_an_unsupported_python(monkeypatch):
    says(software.python(), "ok", "Python 3.")
    monkeypatch.setattr(software.platform, "python_version", lambda: "3.10.4")
    says(software.python(), "problem", "3.10.4", ">=3.11")


def test_missing_and_foreign_versions_of_packages(monkeypatch):
    says(software.dependencies(), "ok", "torch", "allowed range")
    needs = {"hcoatnet": ["numpy>=2.0", "torch>=2.6", "rich>=13", "colorama>=1; sys_platform == 'nowhere'",
                          "uvicorn>=9; extra == 'serve'"]}  # fmt: skip
    packages(monkeypatch, {"numpy": "1.26.4", "rich": "14.0"}, needs)
    says(software.dependencies(), "problem", "numpy 1.26.4 is not >=2.0", "torch is not installed", "pip install")
    assert "rich" not in software.dependencies().found
    packages(monkeypatch, {"numpy": "2.1", "torch": "2.7.0+cpu", "rich": "14.0"}, needs)
    says(software.dependencies(), "ok", "all 3")


def test_a_torchvision_that_was_built_for_another_torch(monkeypatch):
    packages(monkeypatch, {"torchvision": "0.28"}, {"torchvision": ["torch==2.14.0", "numpy"]})
    torch = SimpleNamespace(__version__="2.15.0+cpu")
    modules(
        monkeypatch, {"torch": torch, "torchvision": RuntimeError("operator torchvision::nms does not exist\nmore")}
    )
    says(software.torch_and_torchvision(), "problem", "nms does not exist", "torch==2.14.0", "torch 2.15.0+cpu")
    modules(monkeypatch, {"torch": torch, "torchvision": SimpleNamespace(__version__="0.28")})
    says(software.torch_and_torchvision(), "warning", "torch==2.14.0")
    torch.__version__ = "2.14.0+cu132"
    says(software.torch_and_torchvision(), "ok", "2.14.0")
    modules(monkeypatch, {"torch": OSError("libcublas.so.12: cannot open shared object file")})
    says(software.torch_and_torchvision(), "problem", "torch does not load: libcublas")


def test_extras(monkeypatch):
    needs = {"hcoatnet": ["numpy>=2", "onnxruntime>=1.20; extra == 'serve'", "fastapi>=0.115; extra == 'serve'"]}
    packages(monkeypatch, {"onnxruntime": "1.21"}, needs)
    modules(monkeypatch, {"onnxruntime": None})
    says(software.extras(), "ok", "not installed: serve", "pip install 'hcoatnet[serve]'")
    packages(monkeypatch, {"onnxruntime": "1.21", "fastapi": "0.100"}, needs)
    says(software.extras(), "warning", "fastapi 0.100 is not >=0.115")
    packages(monkeypatch, {"onnxruntime": "1.21", "fastapi": "0.120"}, needs)
    assert software.extras() == Finding("ok", "present: serve")
    modules(monkeypatch, {"onnxruntime": ImportError("/home/ada/venv/lib/onnxruntime.so: no libstdc++")})
    says(software.extras(), "warning", "onnxruntime does not load: …/onnxruntime.so: no libstdc++")


@pytest.mark.parametrize(("lost", "status"), [("JPEG", "problem"), ("WEBP", "warning")])
def test_formats_that_this_pillow_lacks(lost, status, monkeypatch):
    from PIL import Image

    says(software.photo_formats(), "ok", "WebP", "HEIC")
    save = Image.Image.save

    def without(self, stream, kind):
        if kind == lost:
            raise KeyError(kind)
        save(self, stream, kind)

    monkeypatch.setattr(Image.Image, "save", without)
    says(software.photo_formats(), status, lost if lost == "JPEG" else "WebP", "pip install")


def test_encodings(monkeypatch):
    monkeypatch.setattr(software.sys, "stdout", SimpleNamespace(encoding="UTF-8"))
    says(software.encoding(), "ok", "utf-8")
    monkeypatch.setattr(software.sys, "stdout", SimpleNamespace(encoding="cp1252"))
    says(software.encoding(), "warning", "cp1252", "PYTHONUTF8=1")
    monkeypatch.setattr(software.sys, "getfilesystemencoding", lambda: "ascii")
    says(software.encoding(), "problem", "ascii", "PYTHONUTF8=1")


class Card:
    """torch.cuda of a machine that a test describes."""

    def __init__(self, available=False, error=None, free=20 * GB, bf16=True):
        self.available, self.error, self.free, self.bf16 = available, error, free, bf16

    def is_available(self):
        return self.available

    def init(self):
        if self.error:
            raise self.error

    def get_device_name(self, index):
        return "Card X"

    def device_count(self):
        return 2

    def mem_get_info(self, index):
        return self.free, 24 * GB

    def is_bf16_supported(self):
        return self.bf16


def computes_on(monkeypatch, card, driver=False, built="12.8", mps=False, error=None):
    import torch

    class Ones:
        def sum(self):
            if error:
                raise error
            return SimpleNamespace(item=lambda: 2.0)

    monkeypatch.setattr(torch, "cuda", card)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: Ones())
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(hardware, "_cpu_precision", lambda: "float32")
    monkeypatch.setattr(hardware, "DRIVER", SimpleNamespace(exists=lambda: driver))
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_devices(monkeypatch):
    computes_on(monkeypatch, Card())
    says(hardware.device(), "ok", "CPU, training in float32")
    computes_on(monkeypatch, Card(), mps=True)
    says(hardware.device(), "ok", "Apple GPU")
    computes_on(monkeypatch, Card(available=True))
    says(hardware.device(), "ok", "2 × Card X, 20.0 GB of 24.0 GB free, training in bf16")
    computes_on(monkeypatch, Card(available=True, bf16=False, free=GB // 2))
    says(hardware.device(), "warning", "no bf16", "Another program")
    computes_on(monkeypatch, Card(available=True), error=RuntimeError("no kernel image is available\nmore"))
    says(hardware.device(), "problem", "Card X cannot be computed on: no kernel image", "--device cpu")


def test_a_card_that_torch_does_not_use(monkeypatch):
    old = RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")
    computes_on(monkeypatch, Card(error=old), driver=True)
    says(hardware.device(), "problem", "too old (found version 11040)", "CUDA 12.8", "Update the NVIDIA driver")
    computes_on(monkeypatch, Card(), driver=True)
    says(hardware.device(), "problem", "no card is visible", "--gpus all")
    computes_on(monkeypatch, Card(), driver=True, built=None)
    says(hardware.device(), "warning", "built without CUDA")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    says(hardware.device(), "ok", "CUDA_VISIBLE_DEVICES hides")


def test_more_threads_than_cores(monkeypatch):
    import joblib
    import torch

    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    says(hardware.threads(), "ok", "2 threads on 2 usable cores")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    says(hardware.threads(), "warning", "16 threads on 2", "OMP_NUM_THREADS=2")


@pytest.mark.parametrize(("free", "status"), [(8, "ok"), (2, "warning"), (0.5, "problem")])
def test_memory(free, status, monkeypatch, tmp_path):
    import psutil

    monkeypatch.setattr(hardware, "CGROUPS", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free * GB))
    says(hardware.memory(), status, f"{free:.1f} GB free")


def test_the_memory_of_a_container(monkeypatch, tmp_path):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GB))
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path)
    for name, content in (
        ("memory.max", f"{4 * GB}"), ("memory.current", f"{3 * GB}"), ("memory.stat", f"anon 1\ninactive_file {GB}\n"),
    ):  # fmt: skip
        (tmp_path / name).write_text(content)
    says(hardware.memory(), "warning", "2.0 GB left of what this container may use")
    (tmp_path / "memory.max").write_text("max\n")
    says(hardware.memory(), "ok", "100.0 GB free")
    (tmp_path / "memory").mkdir()
    for name, content in (
        ("limit_in_bytes", f"{GB}"), ("usage_in_bytes", f"{GB}"), ("stat", "total_inactive_file 0\n")
    ):  # fmt: skip
        (tmp_path / "memory" / f"memory.{name}").write_text(content)
    says(hardware.memory(), "problem", "0.0 GB left")


def test_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda folder: Usage(GB, 0, 64_000_000))
    says(hardware.shared_memory(), "warning", "0.1 GB", "--shm-size", "--workers 0")
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda folder: Usage(GB, 0, 2 * GB))
    says(hardware.shared_memory(), "ok", "2.0 GB")
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path / "none")
    says(hardware.shared_memory(), "ok", "no limit")


def test_clocks(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    says(hardware.clock(), "ok", "20")
    now = hardware.time.time()
    monkeypatch.setattr(hardware.time, "time", lambda: now - 3600)
    monkeypatch.setattr(hardware, "DAY", 10**9)
    says(hardware.clock(), "warning", "s ahead", "NTP")
    monkeypatch.undo()
    monkeypatch.setattr(hardware.time, "time", lambda: 0.0)
    says(hardware.clock(), "problem", "before hcoatnet was installed")


@pytest.mark.parametrize(("free", "status"), [(50, "ok"), (3, "warning"), (0.2, "problem")])
def test_room_on_the_disk(free, status, monkeypatch):
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: Usage(100 * GB, 0, free * GB))
    says(storage.disk(), status, f"{free:.1f} GB free for runs", "for the cache")


def test_folders_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    says(storage.writing(), "ok")
    assert list(tmp_path.iterdir()) == []
    make = storage.tempfile.NamedTemporaryFile
    for refused, status in (("cache", "warning"), ("work", "problem")):
        (tmp_path / refused).mkdir()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path if refused == "cache" else tmp_path / "work")

        def guarded(dir, **options):
            if dir.name == refused:  # noqa: B023 - called within this round
                raise PermissionError(13, "Permission denied")
            return make(dir=dir, **options)

        monkeypatch.setattr(storage.tempfile, "NamedTemporaryFile", guarded)
        says(storage.writing(), status, "Permission denied")


@pytest.mark.parametrize(
    ("trait", "status", "word"),
    [("_replaces", "problem", "replaced"), ("_locks", "problem", "lock"), ("_tells_case", "warning", "capitals"),
     ("_keeps_accents", "warning", "accents")],
)  # fmt: skip
def test_file_systems_that_lack_something(trait, status, word, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage, trait, lambda folder: False)
    says(storage.file_system(), status, word)
    assert list(tmp_path.iterdir()) == []


def test_this_file_system_is_really_tried(monkeypatch, tmp_path):
    assert storage._replaces(tmp_path) and storage._tells_case(tmp_path) and storage._keeps_accents(tmp_path)
    assert storage._locks(tmp_path)
    monkeypatch.setattr(storage, "_SECOND_PROCESS", "")  # a second process that gets the lock ends like this
    assert not storage._locks(tmp_path)

    def refuse(self, target):
        raise OSError("not here")

    monkeypatch.setattr(storage.Path, "replace", refuse)
    assert not storage._replaces(tmp_path)
    (tmp_path / "case.txt").write_text("")
    assert not storage._tells_case(tmp_path)


def test_a_training_step(monkeypatch):
    import torch

    says(self_test.self_test(), "ok", "a training step taken on cpu")
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    says(self_test.self_test(), "problem", "nonsense")

    def broken(*_):
        raise RuntimeError("illegal instruction in /opt/lib/libmkl.so\nmore")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", broken)
    says(self_test.self_test(), "problem", "illegal instruction in …/libmkl.so")


def test_a_check_that_fails_itself_stops_no_other(monkeypatch):
    def broken():
        raise ValueError("odd machine")

    monkeypatch.setattr(examination, "CHECKS", {"first": broken, "second": lambda: Finding("ok", "fine")})
    found = examination.examine()
    says(found["first"], "warning", "odd machine")
    assert found["second"] == Finding("ok", "fine")


@pytest.fixture
def two_checks(monkeypatch):
    checks = {"one": lambda: Finding("ok", "fine"), "two": lambda: Finding("warning", "odd", "Look.")}
    monkeypatch.setattr(examination, "CHECKS", checks)
    return checks


def test_the_command_shows_a_table_and_its_exit_code_tells_of_problems(two_checks, hcoatnet):
    code, printed = hcoatnet("doctor")
    assert code == 0
    assert "Problems: 0. Warnings: 1." in printed
    assert "fine" in printed and "Look." in printed
    two_checks["three"] = lambda: Finding("problem", "broken", "Mend it.")
    code, printed = hcoatnet("doctor")
    assert code == 1
    assert "Problems: 1. Warnings: 1." in printed and "Mend it." in printed


def test_the_command_prints_json(two_checks, hcoatnet):
    code, printed = hcoatnet("doctor", "--json")
    content = json.loads(printed)
    assert code == 0
    assert content["problems"] == 0 and content["warnings"] == 1
    assert content["checks"][1] == {"check": "two", "status": "warning", "found": "odd", "advice": "Look."}


@pytest.mark.slow
def test_this_machine_has_no_problem_and_is_not_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hcoatnet", "doctor", "--json"], capture_output=True, text=True, cwd=tmp_path
    )
    content = json.loads(done.stdout)
    assert done.returncode == 0, content
    assert [one["check"] for one in content["checks"]] == list(examination.CHECKS)
    assert str(tmp_path) not in done.stdout
    assert list(tmp_path.iterdir()) == []
