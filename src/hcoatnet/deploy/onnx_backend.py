"""A model in one ONNX file, run by ONNX Runtime. Needs neither torch nor the package that made the file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hcoatnet.config import LARGEST_SIDE
from hcoatnet.deploy.answers import TokenStage, TokenTrace
from hcoatnet.deploy.backend import Output
from hcoatnet.documents import DocumentError, parse_object
from hcoatnet.errors import BundleError, DataError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]

FORMAT = 1
METADATA_KEY = "hcoatnet"
"""Where the file keeps its facts, as JSON; see ``docs/reference/files.md``."""
MOST_MEMBERS, MOST_STAGES = 1000, 100
"""Models in one file, and cuts in one model: more than there will be."""
MOST_VIEWS = 16
"""Views of photos that pass together where a model takes several: as many as photos in a batch of others."""
PHOTOS = "photos"
LOGITS = "logits"
ADVICE = "Export the model again with `hcoatnet export`."


class OnnxBackend:
    """A model that ``hcoatnet export`` wrote; safe to run from several threads at once.

    Attributes:
        name: ``onnx``.
        metadata: The facts that the file holds about itself.
        classes: Class names in the order of the logits.
        image_size: Side S of its photos, in pixels.
        members: How many models it holds.
        views: In how many views they see each photo.
        prunes: Whether it prunes tokens.
    """

    name = "onnx"

    def __init__(self, session: "InferenceSession", metadata: Mapping[str, Any]) -> None:
        self._session = session
        self.metadata = metadata
        self.classes: tuple[str, ...] = tuple(metadata["classes"])
        self.image_size: int = metadata["image_size"]
        self.members: int = metadata["members"]
        self.views: int = metadata.get("views", 1)
        self.prunes: bool = metadata["stages"] > 0

    @classmethod
    def open(cls, path: Path, *, threads: int | None = None) -> "OnnxBackend":
        """Load a file.

        Args:
            path: A file that ``hcoatnet export`` or ``hcoatnet bundle`` wrote.
            threads: Threads that one photo or batch may use; None for ONNX Runtime's own choice.

        Raises:
            BundleError: There is no such file, it is no ONNX model, or ``hcoatnet export`` did not write it.
        """
        if not path.is_file():
            raise BundleError(f"There is no ONNX file {path}. Make one with `hcoatnet export RUN --out FILE`.")
        session = _load(path, threads)
        metadata = _read_metadata(path, session)
        _check_tensors(path, session, metadata)
        return cls(session, metadata)

    def run(self, photos: NDArray[np.float32]) -> Output:
        """Logits, and the token trace where the model prunes, of preprocessed photos (N, 3, S, S).

        Raises:
            DataError: The array has another shape or type, or no photo.
        """
        side = self.image_size
        if photos.dtype != np.float32 or photos.ndim != 4 or photos.shape[1:] != (3, side, side) or not len(photos):
            raise DataError(
                f"The model takes preprocessed photos (N, 3, {side}, {side}) in float32, N at least 1. Got "
                f"{photos.shape} in {photos.dtype}. Prepare each with hcoatnet.data.images.preprocess(photo, {side})."
            )
        names = [LOGITS, *stage_outputs(self.metadata["stages"])]
        most = len(photos) if self.views == 1 else max(1, MOST_VIEWS // self.views)
        parts = [
            self._session.run(names, {PHOTOS: np.ascontiguousarray(photos[start : start + most])})
            for start in range(0, len(photos), most)
        ]
        values = [np.concatenate(same) for same in zip(*parts, strict=True)]
        by_member = [value.reshape(len(photos), self.members, -1) for value in values]
        traces = self._traces(by_member[1:]) if self.prunes else None
        return Output(by_member[0], traces)

    def _traces(self, values: Sequence[NDArray[Any]]) -> tuple[tuple[TokenTrace, ...], ...]:
        rows, columns = self.metadata["tokens"]
        cuts = [values[start : start + 3] for start in range(0, len(values), 3)]
        return tuple(
            tuple(
                TokenTrace(rows, columns, tuple(_stage(cut, photo, member) for cut in cuts))
                for member in range(self.members)
            )
            for photo in range(len(values[0]))
        )


def stage_outputs(stages: int) -> list[str]:
    """Names of the outputs that tell what each of so many cuts saw and kept."""
    return [f"stage{stage}_{what}" for stage in range(1, stages + 1) for what in ("positions", "scores", "kept")]


def _stage(cut: Sequence[NDArray[Any]], photo: int, member: int) -> TokenStage:
    positions, scores, kept = (values[photo, member].tolist() for values in cut)
    return TokenStage(tuple(positions), tuple(scores), tuple(kept))


def _load(path: Path, threads: int | None) -> "InferenceSession":
    try:
        import onnxruntime
    except ImportError as error:
        raise BundleError(
            "Running an ONNX model needs ONNX Runtime. Install it with: pip install 'hcoatnet[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, too
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common kind for what it raises here
        reason = str(error).strip().splitlines()[0]
        raise BundleError(f"{path} is no ONNX model that can be run ({reason}). {ADVICE}") from error


def _read_metadata(path: Path, session: "InferenceSession") -> Mapping[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise BundleError(f"{path} was not written by `hcoatnet export`: it does not name its classes. {ADVICE}")
    try:
        metadata = parse_object(text)
    except DocumentError as error:
        raise BundleError(f"The metadata of {path} are damaged: what is there {error}. {ADVICE}") from error
    if (found := metadata.get("format")) != FORMAT:
        raise BundleError(f"{path} has format {found}; this version reads format {FORMAT}. {ADVICE}")
    if wrong := list(_wrong_facts(metadata)):
        raise BundleError(f"The metadata of {path} lack usable {', '.join(wrong)}. {ADVICE}")
    return MappingProxyType(metadata)


def _wrong_facts(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in ("hcoatnet", "name", "architecture", "precision"):
        if not isinstance(metadata.get(key), str):
            yield key
    classes = metadata.get("classes")
    if (
        not isinstance(classes, list)
        or not all(isinstance(name, str) for name in classes)
        or not 1 < len(classes) == len(set(classes))
    ):
        yield "classes"
    for key, least, most in (("image_size", 1, LARGEST_SIDE), ("members", 1, MOST_MEMBERS), ("stages", 0, MOST_STAGES)):
        if not _is_count(metadata.get(key), least, most):
            yield key
    if not _is_count(metadata.get("views", 1), 1, MOST_VIEWS):
        yield "views"
    tokens = metadata.get("tokens")
    grid = isinstance(tokens, list) and len(tokens) == 2 and all(_is_count(side, 1, LARGEST_SIDE) for side in tokens)
    if not grid and not (tokens is None and metadata.get("stages") == 0):
        yield "tokens"


def _is_count(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _check_tensors(path: Path, session: "InferenceSession", metadata: Mapping[str, Any]) -> None:
    """Refuse a file whose tensors are not those that its metadata announce."""
    side, members = metadata["image_size"], metadata["members"]
    inputs = {one.name: one.shape[1:] for one in session.get_inputs()}
    outputs = {one.name: one.shape[1:] for one in session.get_outputs()}
    expected = {LOGITS: len(metadata["classes"])}
    if metadata["stages"]:
        expected |= dict.fromkeys(stage_outputs(1)[:2], math.prod(metadata["tokens"]))
    apart = [] if members == 1 else [members]
    fits = all(outputs.get(name) == [*apart, count] for name, count in expected.items())
    names = {LOGITS, *stage_outputs(metadata["stages"])}
    if inputs != {PHOTOS: [3, side, side]} or outputs.keys() != names or not fits:
        raise BundleError(f"{path} contradicts its metadata: it takes {inputs} and gives {outputs}. {ADVICE}")
