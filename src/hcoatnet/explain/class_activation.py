"""Grad-CAM: which places of a photo speak for a class (Selvaraju et al. 2017, arXiv 1610.02391)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from hcoatnet.models.activation_maps import activation_place


@dataclass(frozen=True, eq=False)
class Activation:
    """Class-activation maps of B photos.

    Attributes:
        signed: Σₖ αₖ Aₖ, shape (B, H, W): positive places speak for the class, negative ones against it. Grad-CAM's map
            is max(signed, 0).
        logits: Shape (B, C).
    """

    signed: NDArray[np.float32]
    logits: NDArray[np.float32]


def class_activation(model: nn.Module, photos: torch.Tensor, classes: torch.Tensor) -> Activation:
    """Grad-CAM of every photo for a class of its own.

    With the maps Aₖ at the model's place (:func:`~hcoatnet.models.activation_maps.activation_place`) and the logit y of
    the class, αₖ is the mean over the places of ∂y/∂Aₖ (equation 1 of the paper).

    The model computes as in evaluation, whatever its mode, so that no photo depends on the others. It is left as it
    was, without gradients and without hooks.

    Args:
        model: Any model for which a place is known.
        photos: Preprocessed photos (B, 3, S, S), on the model's device.
        classes: Index of the class to explain for each photo, (B,).

    Raises:
        ModelError: No place is known for the model.
    """
    place = activation_place(model)
    seen: list[Any] = []
    was_training = model.training
    handle = place.module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # With a photo that asks for gradients, frozen weights are no obstacle.
            logits = _forward(model.eval(), photos.detach().clone().requires_grad_())
            chosen = logits.gather(1, classes.to(logits.device).unsqueeze(1)).sum()
            output = seen[-1]
            whole = isinstance(output, torch.Tensor)
            (gradient,) = torch.autograd.grad(chosen, output if whole else output[0])
            maps = place.to_map(output)
            slopes = place.to_map(gradient if whole else (gradient, *output[1:]))
            signed = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1)
    finally:
        handle.remove()
        model.train(was_training)
    return Activation(_to_numpy(signed), _to_numpy(logits))


def _forward(model: nn.Module, photos: torch.Tensor) -> torch.Tensor:
    """Logits; through copies of weights that were made in inference mode, since no gradient can pass those."""
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if any(tensor.is_inference() for tensor in weights.values()):
        weights = {name: tensor.clone() for name, tensor in weights.items()}
        copied: torch.Tensor = functional_call(model, weights, (photos,))
        return copied
    logits: torch.Tensor = model(photos)
    return logits


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array
