"""The two files of weights in a run directory: the best ones to use, and the whole state to continue from.

Both are built in memory and then written, so that a full disk is met by our own writing, which undoes itself, and not
inside torch's or safetensors', which answer it with errors of their own.
"""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hcoatnet.errors import RunError
from hcoatnet.files import write_bytes
from hcoatnet.models.tensor_files import load_tensors

STATE_FORMAT = 1


def save_weights(model: nn.Module, path: Path, description: dict[str, Any]) -> None:
    """Write the model's parameters and buffers as safetensors, at once.

    The description stands in one metadata entry, because safetensors writes several in no fixed order, and equal
    weights shall be equal files.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"hcoatnet": json.dumps(description, sort_keys=True)}
    write_bytes(path, save(tensors, metadata=metadata))


def load_weights(model: nn.Module, path: Path) -> None:
    """Load what :func:`save_weights` wrote into a model of the same architecture.

    Raises:
        RunError: The file is missing, damaged, or of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot read the weights {path}: {error}. Train again, or restore the file.") from error
    except RuntimeError as error:
        raise RunError(
            f"The weights {path} are not those of the model in the run's config.yaml. Restore the two files together."
        ) from error


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write everything that training needs to continue, at once: tensors and plain values only."""
    buffer = BytesIO()
    torch.save({"format": STATE_FORMAT, **state}, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote, onto the CPU, without unpickling code.

    Raises:
        RunError: The file is damaged, holds anything but tensors and plain values, or is of a newer version.
    """
    damaged = f"Cannot read the training state {path}: it is damaged or not ours. Start a new run."
    try:
        state = load_tensors(path)
    except Exception as error:  # a damaged file can make torch raise almost anything
        raise RunError(damaged) from error
    if not isinstance(state, dict):
        raise RunError(damaged)
    if state.get("format") != STATE_FORMAT:
        raise RunError(
            f"The training state {path} has format {state.get('format')}; this version reads {STATE_FORMAT}. "
            "Continue with the version of hcoatnet that wrote it."
        )
    return state
