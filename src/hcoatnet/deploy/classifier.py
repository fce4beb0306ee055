"""A trained model as a colleague uses it: photos in, typed answers out."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hcoatnet.data.images import PhotoError, open_photo, photo_of, preprocess
from hcoatnet.deploy.answers import ERROR_RATE, LEVEL, METHOD, Answer, Rules
from hcoatnet.deploy.backend import Backend
from hcoatnet.deploy.bundle import Bundle, is_bundle
from hcoatnet.errors import BundleError, DataError, Problem
from hcoatnet.evaluation.prediction_sets import Method
from hcoatnet.training.run_directory import RunDirectory

BATCH = 16
"""Photos that are answered together."""

Photo = Path | str | bytes | Image.Image | NDArray[np.uint8]
"""A file, the bytes of one, an image that Pillow holds, or pixels (H, W, 3), red, green, blue, 0–255."""

Runner = Literal["auto", "onnx", "torch"]


class Classifier:
    """A model with the rules that turn its logits into answers. It may be used from several threads at once.

    Attributes:
        backend: What computes the logits.
        rules: What turns them into answers.
        classes: Class names in the order of the probabilities.
        image_size: Side of the square to which photos are resized, in pixels.
        members: How many models are averaged.
        prunes: Whether they leave tokens out, so that answers have traces.
    """

    def __init__(self, backend: Backend, rules: Rules) -> None:
        self.backend = backend
        self.rules = rules
        self.classes = rules.classes
        self.image_size = backend.image_size
        self.members = backend.members
        self.prunes = backend.prunes

    def predict(self, images: Sequence[Photo], names: Sequence[str] | None = None) -> tuple[Answer, ...]:
        """Answer photos, at most 16 at a time.

        Args:
            images: Files, bytes of files, Pillow images, or arrays (H, W, 3) of uint8.
            names: How answers and errors call the photos; by default files by their path, others ``photo 1``, …

        Returns:
            An answer for each photo, in their order.

        Raises:
            PhotoError: A photo cannot be opened. Nothing is answered then.
            DataError: ``images`` is a single photo, or there are not as many names.
        """
        if isinstance(images, str | bytes | Path | Image.Image):
            raise DataError("Give several photos, or one in a list: predict([photo]).")
        if names is None:
            names = [str(one) if isinstance(one, str | Path) else f"photo {i}" for i, one in enumerate(images, 1)]
        if len(names) != len(images):
            raise DataError(f"There are {len(names)} names for {len(images)} photos. Give one for each.")
        answers: list[Answer] = []
        for start in range(0, len(images), BATCH):
            some = slice(start, start + BATCH)
            photos = [self.prepare(image, name) for image, name in zip(images[some], names[some], strict=True)]
            answers += self.answer(np.stack(photos), names[some])
        return tuple(answers)

    def prepare(self, image: Photo, name: str) -> NDArray[np.float32]:
        """A photo as the model takes it, (3, S, S).

        Raises:
            PhotoError: It cannot be opened.
        """
        return preprocess(_opened(image, name), self.image_size)

    def answer(self, photos: NDArray[np.float32], names: Sequence[str]) -> tuple[Answer, ...]:
        """Answers to prepared photos (N, 3, S, S) with these names, computed in one batch."""
        output = self.backend.run(photos)
        return self.rules.answer(output.logits, names, output.traces)


def load_classifier(
    path: Path | str | Bundle,
    *,
    backend: Runner = "auto",
    method: Method = METHOD,
    class_conditional: bool = False,
    level: float = LEVEL,
    error_rate: float = ERROR_RATE,
    threads: int | None = None,
) -> Classifier:
    """Load a bundle, or a finished run, ready to answer photos.

    Args:
        path: A folder that ``hcoatnet bundle`` or ``hcoatnet train`` made, or a bundle that was opened already.
        backend: ``onnx`` or ``torch``; ``auto`` takes ONNX Runtime for a bundle where it is installed, else torch.
        method: Score of the prediction sets, ``lac`` or ``aps``.
        class_conditional: Whether each class has a threshold of its own.
        level: Coverage that the prediction sets aim at, 0.9 or 0.95.
        error_rate: Share of wrong answers that is accepted above the abstain threshold, 0.05 or 0.1.
        threads: Threads for one batch; None leaves it to the backend. With torch it holds for the whole process.

    Returns:
        A classifier; ``classifier.predict(["photo.jpg"])`` gives :class:`~hcoatnet.deploy.answers.Answer` objects.

    Raises:
        BundleError: It is no bundle, damaged, of a newer version, or what runs it is not installed.
        RunError: The run is not finished, or its files do not fit together.
        EvidenceError: The calibration was not fitted for such a setting.
    """
    if not isinstance(path, Bundle) and is_bundle(Path(path)):
        path = Bundle.open(Path(path))
    setting: dict[str, Any] = {
        "method": method, "class_conditional": class_conditional, "level": level, "error_rate": error_rate,
    }  # fmt: skip
    if isinstance(path, Bundle):
        rules = Rules.read(path.calibration, **setting)
        chosen = backend
        if chosen == "auto":
            chosen = "onnx" if importlib.util.find_spec("onnxruntime") else "torch"
        runner = _onnx(path, threads) if chosen == "onnx" else _torch(path, threads)
        return Classifier(runner, rules)
    folder = Path(path)
    _check_is_run(folder, backend)
    run = RunDirectory(folder)
    run.results()
    rules = Rules.read(run.calibration(), **setting)
    return Classifier(_torch(folder, threads), rules)


def _onnx(bundle: Bundle, threads: int | None) -> Backend:
    from hcoatnet.deploy.onnx_backend import OnnxBackend

    found = OnnxBackend.open(bundle.onnx_file, threads=threads)
    stated = (bundle.classes, bundle.image_size, bundle.members)
    if (found.classes, found.image_size, found.members) != stated:
        raise BundleError(
            f"The model.onnx of the bundle {bundle.folder} is not of the model that its config.json describes. Bundle "
            "the run or study again."
        )
    return found


def _torch(source: Bundle | Path, threads: int | None) -> Backend:
    try:
        import torch
    except ImportError as error:
        raise BundleError(
            "Neither ONNX Runtime nor torch can run this model here. Install one of them, such as with: pip install "
            "'hcoatnet[onnx]'"
        ) from error
    from hcoatnet.deploy.torch_backend import TorchBackend

    if threads is not None:
        torch.set_num_threads(threads)
    return TorchBackend.of_bundle(source) if isinstance(source, Bundle) else TorchBackend.of_run(source)


def _check_is_run(folder: Path, backend: Runner) -> None:
    if (folder / "plan.csv").is_file():
        raise BundleError(
            f"{folder} is a study. Make a bundle of one of its models: `hcoatnet bundle {folder} --model MODEL OUT`."
        )
    if not RunDirectory(folder).started:
        why = "is neither a bundle (no hashes.json) nor a run (no config.yaml)" if folder.exists() else "does not exist"
        raise BundleError(f"{folder} {why}. Give a folder that `hcoatnet bundle` or `hcoatnet train` made.")
    if backend == "onnx":
        raise BundleError(
            f"{folder} is a run, which torch alone can run. Make a bundle of it for ONNX Runtime: `hcoatnet bundle "
            f"{folder} OUT`."
        )


def _opened(image: Photo, name: str) -> Image.Image:
    if isinstance(image, str | Path):
        return open_photo(Path(image), name)
    if isinstance(image, bytes):
        return open_photo(image, name)
    if isinstance(image, Image.Image):
        return photo_of(image, name)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size:
        return Image.fromarray(image)
    found = f"an array {image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
    raise PhotoError(
        Problem(
            path=name,
            rule="not an image",
            found=found,
            expected="a file, bytes, a Pillow image, or an array (height, width, 3) of uint8",
            fix="Give red, green and blue from 0 to 255.",
        )
    )
