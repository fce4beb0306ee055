"""An exported model in int8, released only where its answers on the validation photos hardly change."""

import contextlib
import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hcoatnet.data.images import normalise
from hcoatnet.deploy.export import write_metadata
from hcoatnet.deploy.onnx_backend import PHOTOS, OnnxBackend
from hcoatnet.errors import BundleError
from hcoatnet.evaluation.metrics import score
from hcoatnet.files import replace_file

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Pixels = NDArray[np.uint8]
"""Resized photos (N, S, S, 3), values 0–255."""

LEAST_AGREEMENT = 0.99
LARGEST_CHANGE = 0.01
LARGEST_SIZE = 0.5
CALIBRATION_PHOTOS = 100
BATCH = 16
SEVEN_BITS = True
"""Of weights that are multiplied as integers: with 8 bits, sums overflow on processors without VNNI instructions, and a
model that passed on one machine would answer otherwise on another."""


@dataclass(frozen=True)
class Agreement:
    """How the answers in int8 compare with those in float32.

    Attributes:
        method: How the numbers were made smaller, a key of ``METHODS``.
        photos: Validation photos that were compared.
        agreement: Share of them with the same top class.
        macro_f1: In int8.
        macro_f1_float32: In float32.
        size: Size of the file as a share of that in float32.
    """

    method: str
    photos: int
    agreement: float
    macro_f1: float
    macro_f1_float32: float
    size: float

    @property
    def passes(self) -> bool:
        """Whether 99 % agree at least, macro F1 moves by 0.01 at most, and the file is half as large at most."""
        return self.agreement >= LEAST_AGREEMENT and abs(self.change) <= LARGEST_CHANGE and self.size <= LARGEST_SIZE

    @property
    def change(self) -> float:
        """By how much macro F1 moves, without the noise of the subtraction."""
        return round(self.macro_f1 - self.macro_f1_float32, 9)

    def line(self) -> str:
        """What was reached, for a person."""
        return (
            f"Int8 ({self.method}) gives the same top class as float32 on {self.agreement:.1%} of {self.photos} "
            f"validation photos; macro F1 is {self.macro_f1:.4f} in place of {self.macro_f1_float32:.4f}."
        )

    def __str__(self) -> str:
        return f"{self.method}: {self.agreement:.1%}, {self.change:+.4f}, {self.size:.0%} of the size"


def quantise_checked(
    exact: Path, path: Path, calibration: Pixels, validation: Pixels, labels: NDArray[np.integer[Any]]
) -> Agreement:
    """Write ``path`` by the first of ``METHODS`` that passes; else leave it as it was.

    Args:
        exact: The model in float32, as ``hcoatnet export`` writes it.
        path: The file to write. Its folder must be there.
        calibration: Training photos, on which the range of each activation is measured.
        validation: Photos on which the answers are compared.
        labels: Index of their true classes, shape (N,).

    Raises:
        BundleError: No method passes; the message has the figures of each.
    """
    right = _logits(exact, validation)
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for method, quantise in METHODS.items():
            made = Path(folder) / f"{method}.onnx"
            try:
                with _quiet():
                    quantise(exact, made, calibration)
            except Exception as error:  # ONNX Runtime's tools raise many kinds
                failed.append(f"{method}: {next(iter(str(error).splitlines()), type(error).__name__)}")
                continue
            size = made.stat().st_size / exact.stat().st_size
            agreement = _compare(method, size, right, _logits(made, validation), labels)
            if agreement.passes:
                _release(made, path, exact, agreement)
                return agreement
            failed.append(str(agreement))
    raise BundleError(
        f"Nothing was written: on the {len(labels)} validation photos int8 must give the same top class in "
        f"{LEAST_AGREEMENT:.0%}, move macro F1 by {LARGEST_CHANGE} at most, and halve the file. Reached: "
        f"{'; '.join(failed)}. Export the model without --int8."
    )


def _compare(
    method: str, size: float, right: NDArray[np.float32], found: NDArray[np.float32], labels: NDArray[np.integer[Any]]
) -> Agreement:
    return Agreement(
        method=method,
        photos=len(labels),
        agreement=float((right.argmax(axis=1) == found.argmax(axis=1)).mean()),
        macro_f1=score(labels, found).macro_f1,
        macro_f1_float32=score(labels, right).macro_f1,
        size=size,
    )


def _logits(path: Path, pixels: Pixels) -> NDArray[np.float32]:
    backend = OnnxBackend.open(path)
    return np.concatenate([backend.run(batch).logits[:, 0] for batch in _batches(pixels, BATCH)])


def _batches(pixels: Pixels, size: int) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(pixels), size):
        yield np.stack([normalise(one) for one in pixels[start : start + size]])


def _release(made: Path, path: Path, exact: Path, agreement: Agreement) -> None:
    """Move a file that passed to its place, its metadata completed."""
    import onnx

    metadata = {**OnnxBackend.open(exact).metadata, "precision": "int8", "int8": asdict(agreement)}
    proto = onnx.load(made)
    write_metadata(proto, metadata)
    replace_file(path, lambda temporary: _write(proto, temporary))


def _write(proto: "ModelProto", path: Path) -> None:
    path.write_bytes(proto.SerializeToString())


def _dynamic(exact: Path, made: Path, calibration: Pixels) -> None:
    """Weights of matrix products, and their activations by the range of each photo; convolutions stay as they are."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    layers = [layer.name for layer in _inner_layers(_load(exact).graph) if layer.op_type != "Conv"]
    if not layers:  # the tool would take an empty list for all layers
        shutil.copyfile(exact, made)
        return
    quantize_dynamic(
        exact,
        made,
        per_channel=True,
        reduce_range=SEVEN_BITS,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=layers,
        op_types_to_quantize=list(LAYERS),
    )


def _static(exact: Path, made: Path, calibration: Pixels) -> None:
    """Weights and activations of all layers but the first, the last and depthwise ones, which suffer most."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    layers = [layer.name for layer in _inner_layers(_load(exact).graph) if not _is_depthwise(layer)]
    if not layers:  # the tool would take an empty list for all layers
        shutil.copyfile(exact, made)
        return
    quantize_static(
        exact,
        made,
        _Calibration(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=SEVEN_BITS,
        nodes_to_quantize=layers,
        op_types_to_quantize=list(LAYERS),
    )


def _weights(exact: Path, made: Path, calibration: Pixels) -> None:
    """Only the weights, a scale for each output channel: a smaller file that computes in float32.

    ONNX Runtime multiplies them out once, when it loads the file; it would run DequantizeLinear at each photo.
    """
    from onnx import TensorProto, helper, numpy_helper

    proto = _load(exact)
    graph = proto.graph
    initialisers = {one.name: one for one in graph.initializer}
    axes = {layer.input[1]: _output_axis(layer) for layer in _inner_layers(graph)}
    for name, axis in axes.items():
        weight = numpy_helper.to_array(initialisers[name])
        others = tuple(one for one in range(weight.ndim) if one != axis % weight.ndim)
        largest = np.abs(weight).max(axis=others, keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        graph.initializer.remove(initialisers[name])
        graph.initializer.append(numpy_helper.from_array(np.rint(weight / scale).astype(np.int8), f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        graph.node.insert(0, helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=TensorProto.FLOAT))
    _write(proto, made)


METHODS: Mapping[str, Callable[[Path, Path, Pixels], None]] = {
    "dynamic": _dynamic,
    "static": _static,
    "weights": _weights,
}
"""In the order in which they are tried: the first two can be faster than float32, the last one changes least."""

LAYERS = ("Conv", "Gemm", "MatMul")
"""What holds weights. Attention, layer norms, softmax and the choice of tokens stay in float32."""


def _inner_layers(graph: "GraphProto") -> list["NodeProto"]:
    """Layers with weights of their own, without the one that reads the photos and the classifier."""
    constants = {one.name for one in graph.initializer}
    layers = [node for node in graph.node if node.op_type in LAYERS and node.input[1] in constants]
    return layers[1:-1]


def _is_depthwise(layer: "NodeProto") -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in layer.attribute)


def _output_axis(layer: "NodeProto") -> int:
    """Axis of a layer's weight that counts its output channels."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in layer.attribute)
    return 0 if layer.op_type == "Conv" or transposed else -1


class _Calibration:
    """Gives ONNX Runtime one photo after another, as its ``CalibrationDataReader`` does."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches = _batches(pixels, 1)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        photos = next(self._batches, None)
        return None if photos is None else {PHOTOS: photos}


def _load(path: Path) -> "ModelProto":
    import onnx

    return onnx.load(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tools advise at length, by ``print`` and by ``logging``."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
