"""What runs a model's numbers, behind one interface: ONNX Runtime or torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hcoatnet.deploy.answers import TokenTrace


@dataclass(frozen=True, eq=False)
class Output:
    """What a backend gives for a batch of N photos.

    Attributes:
        logits: Shape (N, M, C), M members of the classifier, float32.
        traces: Of each photo, a trace for each member; None for models that prune nothing.
    """

    logits: NDArray[np.float32]
    traces: Sequence[tuple[TokenTrace, ...]] | None


class Backend(Protocol):
    """A model that can be run from several threads at once.

    Attributes:
        name: ``onnx`` or ``torch``.
        image_size: Side S of its photos, in pixels.
        members: M, how many models it averages.
        prunes: Whether it prunes tokens.
    """

    name: str
    image_size: int
    members: int
    prunes: bool

    def run(self, photos: NDArray[np.float32]) -> Output:
        """Logits, and the token trace where there is one, of preprocessed photos (N, 3, S, S)."""
        ...
