"""A model run by torch: what torch alone can do (a run directory), and what ONNX Runtime is compared with."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hcoatnet.deploy.answers import TokenStage, TokenTrace
from hcoatnet.deploy.backend import Output
from hcoatnet.deploy.bundle import Bundle
from hcoatnet.errors import BundleError, ModelError
from hcoatnet.models.token_pruning import StageTrace, logits_and_traces
from hcoatnet.models.views import with_views
from hcoatnet.training.inference import memory_layout
from hcoatnet.training.run_directory import RunDirectory

PLAIN = (str, int, float, bool, type(None))
"""Kinds that an option of a model may have; timm's own arguments for other sources of weights have others."""

PLUMBING = ("pretrained", "checkpoint_path", "cache_dir", "features_only", "num_classes", "img_size", "in_chans")
"""Beginnings of arguments of timm that are no options of a model."""


class TorchBackend:
    """One model, or several that are averaged, on the CPU in float32; safe to run from several threads at once.

    Attributes:
        name: ``torch``.
        models: The members, in evaluation mode.
        image_size: Side S of their photos, in pixels.
        members: How many there are.
        prunes: Whether they prune tokens.
    """

    name = "torch"

    def __init__(self, models: Sequence[nn.Module], image_size: int) -> None:
        self.models = tuple(model.eval() for model in models)
        self.image_size = image_size
        self.members = len(self.models)
        with torch.inference_mode():
            _, traces = logits_and_traces(self.models[0], torch.zeros(1, 3, image_size, image_size))
        self.prunes = bool(traces)

    @classmethod
    def of_run(cls, path: Path) -> "TorchBackend":
        """The best weights of a finished run.

        Raises:
            RunError: It is no run, not finished, or its weights are missing or damaged.
        """
        from hcoatnet.training.scoring import trained_model

        run = RunDirectory(path)
        config = run.settings()
        classes = run.results()["classes"]
        return cls([trained_model(run, config, len(classes), torch.device("cpu"))], config.image_size)

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> "TorchBackend":
        """The members of a bundle.

        Raises:
            BundleError: Its architecture is unknown here, or the weights are of another.
        """
        return cls([_member(bundle, number) for number in range(bundle.members)], bundle.image_size)

    def run(self, photos: NDArray[np.float32]) -> Output:
        """Logits, and the token trace where the models prune, of preprocessed photos (N, 3, S, S)."""
        logits, traces = [], []
        with torch.inference_mode():
            for model in self.models:
                batch = torch.from_numpy(photos).contiguous(memory_format=memory_layout(model))
                answer, cuts = logits_and_traces(model, batch)
                logits.append(answer.float().numpy())
                traces.append(token_traces(cuts))
        return Output(np.stack(logits, axis=1), tuple(zip(*traces, strict=True)) if self.prunes else None)


def token_traces(cuts: Sequence[StageTrace]) -> tuple[TokenTrace, ...]:
    """What every cut kept, photo by photo; nothing where there was no cut.

    Args:
        cuts: Each with positions, scores and kept (N, k). The first saw every token of a square map.
    """
    if not cuts:
        return ()
    side = math.isqrt(cuts[0].positions.shape[1])
    lists = [(cut.positions.tolist(), cut.scores.tolist(), cut.kept.tolist()) for cut in cuts]
    return tuple(
        TokenTrace(
            side,
            side,
            tuple(TokenStage(*(tuple(values[photo]) for values in cut)) for cut in lists),
        )
        for photo in range(len(lists[0][0]))
    )


def member_prefix(number: int, members: int) -> str:
    """What stands before the tensor names of one member in the weights of a bundle."""
    return f"{number}." if members > 1 else ""


def _member(bundle: Bundle, number: int) -> nn.Module:
    from safetensors import SafetensorError, safe_open

    from hcoatnet.models import registry

    options = bundle.options
    if odd := [key for key, value in options.items() if key.startswith(PLUMBING) or not isinstance(value, PLAIN)]:
        raise BundleError(f"The bundle {bundle.folder} builds its model with {', '.join(odd)}, which is no option.")
    prefix = member_prefix(number, bundle.members)
    try:
        model = registry.create(bundle.architecture, len(bundle.classes), bundle.image_size, **options)
        with safe_open(bundle.weights_file, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            model.load_state_dict({name.removeprefix(prefix): file.get_tensor(name) for name in names})
    except (ModelError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"The weights of the bundle {bundle.folder} are not of the model in its config.json ({reason}). Use the "
            "version of hcoatnet that wrote it, or bundle the run or study again."
        ) from error
    layout = torch.channels_last if bundle.facts["channels_last"] else torch.contiguous_format
    return with_views(model.to(memory_format=layout).eval(), bundle.views)
