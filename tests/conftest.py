"""Shared by all tests: one thread each, tiny photos, and the real photos where the environment names them."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COLUMNS"] = "200"

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from hcoatnet.cli import app, run
from hcoatnet.errors import HCoAtNetError
from hcoatnet.study.cell import Outcome

# In a shell's background job Ctrl-C is ignored, and would be by every process that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)

CLASSES = ("blue", "green", "red")
TINY = {"image_size": 32, "epochs": 1, "batch_size": 8, "device": "cpu", "workers": 0, "lr": 2e-3}
"""Settings of a training of a second."""
COLOURS = {"blue": (60, 70, 170), "green": (60, 150, 70), "red": (170, 60, 60)}


def flags(settings: Mapping[str, object]) -> list[str]:
    """Settings as command-line flags."""
    tokens: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        tokens += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return tokens


def draw_photo(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (48, 40)) -> None:
    """A noisy photo of one colour; another seed gives another photo."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(colour, 25, size=(size[1], size[0], 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 54 photos in three classes: 27 patients with two photos each."""
    folder = tmp_path_factory.mktemp("photos")
    rows = ["path,label,patient_id,site"]
    for number, name in enumerate(CLASSES):
        for patient in range(9):
            for photo in range(2):
                path = f"{name}/p{patient}_{photo}.png"
                draw_photo(folder / path, COLOURS[name], seed=1000 * number + 10 * patient + photo)
                rows.append(f"{path},{name},{name}-{patient},{'arm' if photo else 'leg'}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def manifest_file(photos: Path) -> Path:
    """The manifest of ``photos``, grouped by patient."""
    path = photos / "manifest.csv"
    assert run(app, ["data", "scan", str(photos / "table.csv"), "--out", str(path)]) == 0
    return path


@pytest.fixture
def pad_ufes() -> Path:
    """The folder of the PAD-UFES photos."""
    folder = os.environ.get("HCOATNET_PAD_UFES")
    if not folder:
        pytest.skip("HCOATNET_PAD_UFES does not name the folder of the PAD-UFES photos")
    return Path(folder)


@pytest.fixture
def hcoatnet(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command line in this process; returns the exit code and all that was printed."""

    def call(*tokens: object) -> tuple[int, str]:
        capsys.readouterr()
        code = run(app, [str(token) for token in tokens])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


@pytest.fixture(scope="session")
def folds_file(manifest_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of ``manifest_file``."""
    path = tmp_path_factory.mktemp("folds") / "folds.csv"
    assert run(app, ["data", "split", str(manifest_file), "--folds", "3", "--out", str(path)]) == 0
    return path


class InProcess:
    """Trains the cells of a study in this process, so that tests need not start one for each."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    @contextmanager
    def running(self, tasks, started):
        yield (self._train(task, started) for task in tasks)

    def _train(self, task, started):
        from hcoatnet.training.run import train

        started(task)
        try:
            train(task.config, Console(file=StringIO()))
        except HCoAtNetError as error:
            return Outcome(task.cell.cell, "failed", 1.0, str(error))
        return Outcome(task.cell.cell, "finished", 1.0, "")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``study run`` train its cells in this process."""
    monkeypatch.setattr("hcoatnet.study.run.LocalRunner", InProcess)


@pytest.fixture(scope="session")
def study(manifest_file: Path, folds_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two models on three folds with two seeds. Copy it before you change it."""
    out = tmp_path_factory.mktemp("studies") / "study"
    tokens = ["study", "run", "--models", "cnn,test_vit", "--seeds", "1,2", "--data", str(manifest_file)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hcoatnet.study.run.LocalRunner", InProcess)
        assert run(app, [*tokens, "--split", str(folds_file), "--out", str(out), *flags(TINY)]) == 0
    return out


@pytest.fixture(scope="session")
def pruning_run(manifest_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of an H-CoAtNet on 64² photos. Copy it, with ``manifest_file``'s folder, before you change it."""
    out = tmp_path_factory.mktemp("runs") / "pruning"
    settings = {**TINY, "image_size": 64, "epochs": 2, "model": "h_coatnet", "model_options": "backbone=test_convnext"}
    assert run(app, ["train", "--data", str(manifest_file), "--out", str(out), *flags(settings)]) == 0
    return out


@pytest.fixture(scope="session")
def run_bundle(pruning_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of ``pruning_run``. Copy it before you change it."""
    out = tmp_path_factory.mktemp("bundles") / "run"
    assert run(app, ["bundle", str(pruning_run), str(out), "--licence", "MIT"]) == 0
    return out


@pytest.fixture(scope="session")
def study_bundle(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the three folds of ``cnn`` in ``study``. Copy it before you change it."""
    out = tmp_path_factory.mktemp("bundles") / "study"
    assert run(app, ["bundle", str(study), str(out), "--model", "cnn"]) == 0
    return out
