"""Reading files that torch wrote, wherever they come from: no code of theirs runs, and none is larger than it looks."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch


def load_tensors(path: Path) -> Any:
    """Tensors and plain values of a file of ``torch.save``, on the CPU.

    Raises:
        Exception: Of nearly any kind, if the file is damaged, holds other objects, or would unpack to more than it is.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed, which torch does not write")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # how it was pickled is nothing that its reader can change
        return torch.load(path, map_location="cpu", weights_only=True)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor has a number in memory for each that it claims to hold."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
