"""Shared by all tests: one thread each, tiny photos, and the real photos where the environment names them."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COLUMNS"] = "200"

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcoatnet.cli import app, run

CLASSES = ("blue", "green", "red")
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
