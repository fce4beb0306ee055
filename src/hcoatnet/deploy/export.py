"""One ONNX file of one model or several, released only where it answers as torch does."""

import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hcoatnet import __version__
from hcoatnet.data.images import MEAN, STD
from hcoatnet.deploy.members import Members
from hcoatnet.deploy.onnx_backend import FORMAT, LOGITS, METADATA_KEY, PHOTOS, OnnxBackend, stage_outputs
from hcoatnet.deploy.parity import Parity, check_parity
from hcoatnet.deploy.torch_backend import TorchBackend
from hcoatnet.errors import BundleError
from hcoatnet.files import replace_file
from hcoatnet.models.token_pruning import logits_and_traces
from hcoatnet.models.views import count_views

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights that one file takes: protobuf ends at 2 GiB, and the graph needs some of it."""


@dataclass(frozen=True)
class ExportFacts:
    """What the file's metadata are to say beyond what the models and the package themselves tell.

    Attributes:
        name: How the model is called, such as the run's name.
        architecture: Its name in timm's registry.
        classes: Class names in the order of the logits.
        image_size: Side of the photos, in pixels.
    """

    name: str
    architecture: str
    classes: tuple[str, ...]
    image_size: int


def export_checked(
    models: Sequence[nn.Module], batches: Sequence[NDArray[np.float32]], path: Path, facts: ExportFacts
) -> Parity:
    """Write ``path`` where ONNX Runtime answers as torch does for these batches; else leave it as it was.

    Args:
        models: The members, on the CPU and in evaluation mode.
        batches: Real preprocessed photos, (n, 3, S, S) with several n (see :func:`~hcoatnet.deploy.parity.batches`).
        path: The file. Its folder must be there.
        facts: For the metadata.

    Raises:
        BundleError: The model cannot be exported, or the answers differ.
    """
    passed: list[Parity] = []

    def write(temporary: Path) -> None:
        export_model(models, temporary, facts)
        passed.append(check_parity(TorchBackend(models, facts.image_size), OnnxBackend.open(temporary), batches))

    replace_file(path, write)
    return passed[0]


def export_model(models: Sequence[nn.Module], path: Path, facts: ExportFacts) -> None:
    """Write the models into one ONNX file, weights inside, that takes batches of any size. Nothing is compared here.

    Input ``photos`` (B, 3, S, S); output ``logits`` (B, C), or (B, M, C) for M > 1 members; where the models prune,
    for each cut i from 1 ``stage{i}_positions``, ``stage{i}_scores`` and ``stage{i}_kept``.

    Raises:
        BundleError: The exporter is missing or fails, or the weights are too large for one file.
    """
    size = sum(tensor.nbytes for model in models for tensor in model.state_dict().values())
    if size > LARGEST_FILE:
        raise BundleError(
            f"The weights of {facts.name} need {size / 2**30:.1f} GiB, and one ONNX file holds 2 GiB at most. Export "
            "fewer members or a smaller model."
        )
    members = Members(models).eval()
    example = torch.zeros(2, 3, facts.image_size, facts.image_size)
    with torch.inference_mode():
        _, traces = logits_and_traces(models[0], example)
    outputs = [LOGITS, *stage_outputs(len(traces))]
    proto = _quietly(lambda: _export(members, example, outputs), facts)
    _strip_origins(proto)
    tokens = _grid(traces[0].positions.shape[1]) if traces else None
    write_metadata(proto, _metadata(facts, models, len(traces), tokens))
    path.write_bytes(proto.SerializeToString())


def write_metadata(proto: "ModelProto", metadata: dict[str, Any]) -> None:
    """Put facts into a model's metadata, in place of what is there."""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata, ensure_ascii=False))


def _metadata(facts: ExportFacts, models: Sequence[nn.Module], stages: int, tokens: list[int] | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "hcoatnet": __version__,
        "name": facts.name,
        "architecture": facts.architecture,
        "classes": list(facts.classes),
        "image_size": facts.image_size,
        "members": len(models),
        "views": count_views(models[0]),
        "stages": stages,
        "tokens": tokens,
        "mean": [round(float(value), 6) for value in MEAN],
        "std": [round(float(value), 6) for value in STD],
        "interpolation": "bicubic",
        "precision": "float32",
    }


def _grid(tokens: int) -> list[int]:
    """Rows and columns of the uncut map: photos are square, and so is every map of theirs."""
    side = math.isqrt(tokens)
    assert side * side == tokens, tokens
    return [side, side]


def _export(members: Members, example: torch.Tensor, outputs: list[str]) -> "ModelProto":
    program = torch.onnx.export(
        members,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[PHOTOS],
        output_names=outputs,
        dynamic_shapes={"photos": {0: torch.export.Dim("batch", min=1, max=2**16)}},
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto: ModelProto = program.model_proto
    return proto


def _quietly(work: Callable[[], "ModelProto"], facts: ExportFacts) -> "ModelProto":
    """Do the work without the exporter's chatter; turn whatever it raises into one kind of error."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BundleError(
            "Exporting needs onnx, onnxscript and onnxruntime. Install them with: pip install 'hcoatnet[onnx]'"
        ) from error
    silenced = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            proto = work()
        onnx.checker.check_model(proto)
    except Exception as error:  # the exporter, torch.export and the checker raise many kinds
        raise BundleError(
            f"{facts.architecture} of {facts.name} cannot be exported to ONNX: {_root_of(error)}"
        ) from error
    finally:
        logging.disable(silenced)
    return proto


def _root_of(error: BaseException) -> str:
    """First line of what an error goes back to; the exporter wraps it in advice on how to debug the exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _strip_origins(proto: "ModelProto") -> None:
    """Take out where in whose source each node came from: it names folders of this machine."""
    graph = proto.graph
    holders = [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for function in proto.functions:
        holders += [function, *function.node, *function.value_info]
    for holder in holders:
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")
