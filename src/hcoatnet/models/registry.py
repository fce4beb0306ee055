"""Models by name: create, describe, list. Nothing outside this package knows a model by name."""

import difflib
import inspect
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg_value
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hcoatnet.models
from hcoatnet.errors import ModelError
from hcoatnet.models.weights import load_weights, random_parameters

__all__ = [
    "ALIASES",
    "ModelSummary",
    "create",
    "describe",
    "list_models",
    "load_weights",
    "random_parameters",
    "require_sizes",
    "resolve",
]

ALIASES = {
    "efficientnet": "efficientnet_b0",
    "vit": "vit_tiny_patch16_224",
    "swin": "swin_tiny_patch4_window7_224",
    "coatnet": "coatnet_0_rw_224",
    "gft": "gft_tiny",
}
_FAMILY = tuple(
    f"{family}_{size}" for family in ("h_coatnet", "h_coatnet_window") for size in hcoatnet.models.h_coatnet.SIZES
)
_BASELINES = (
    "cnn",
    "efficientnet_b0",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "coatnet_0_rw_224",
    "convnext_tiny",
    "gft_tiny",
    "gft_base",
)
_SMALL_SIBLINGS = ("convnext_atto", "swin_atto", "test_convnext", "test_efficientnet", "test_vit", "test_coatnet")


@dataclass(frozen=True)
class ModelSummary:
    """What a model costs.

    Attributes:
        name: Its name in timm's registry.
        alias: Its short name, if it has one.
        image_size: Side of the photos for which the counts hold, in pixels.
        parameters: Numbers that training adjusts or keeps fixed.
        multiply_adds: Multiply-adds of one photo's forward pass, attention included.
    """

    name: str
    alias: str | None
    image_size: int
    parameters: int
    multiply_adds: int


def list_models() -> tuple[str, ...]:
    """The models that ``hcoatnet models`` shows: the family, the baselines, small siblings. Any timm model works."""
    return _FAMILY + _BASELINES + _SMALL_SIBLINGS


def resolve(name: str) -> str:
    """Name in timm's registry of a name or alias.

    Raises:
        ModelError: There is no such model; the message gives the nearest names.
    """
    canonical = ALIASES.get(name, name)
    if timm.is_model(canonical):
        return canonical
    near = difflib.get_close_matches(name, [*ALIASES, *timm.list_models()], n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "See `hcoatnet models`."
    raise ModelError(f"Unknown model {name!r}. {hint}")


def create(
    name: str,
    num_classes: int,
    image_size: int,
    *,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    pretrained: bool = False,
    proven: bool = False,
    **options: Any,
) -> nn.Module:
    """Build a model for photos of ``image_size`` × ``image_size`` pixels.

    Args:
        name: Name or alias.
        num_classes: Number of classes; 0 gives features instead of logits.
        image_size: Side of the photos in pixels.
        drop_rate: Dropout before the classifier; None leaves it to the model.
        drop_path_rate: Stochastic depth; None leaves it to the model.
        pretrained: Start from the weights that timm publishes (of the backbone, for H-CoAtNet and GFT).
        proven: Whether the same arguments built a model before, so that nothing needs to be checked.
        options: Further options of the model, such as ``importance``, ``ablation`` or ``stage1_repeats``.

    Raises:
        ModelError: Unknown model or option, a value outside its range, a photo size that the model cannot take, or
            published weights that are not there or cannot be reached.
    """
    name = resolve(name)
    arguments = {"num_classes": num_classes, "drop_rate": drop_rate, "drop_path_rate": drop_path_rate, **options}
    if proven and not pretrained:
        return _build(name, image_size, arguments)
    shapes = _prove(name, image_size, arguments)
    if not pretrained:
        return _build(name, image_size, arguments)
    advice = "Give a file with --init pretrained:FILE, or train with --init scratch."
    published: dict[str, Any] = vars(shapes)["pretrained_cfg"]
    if not any(published.get(source) for source in ("url", "hf_hub_id", "file")):
        raise ModelError(f"There are no published weights for {name}. {advice}")
    try:
        return _build(name, image_size, {**arguments, "pretrained": True})
    except Exception as error:  # whatever a missing network, cache or file raises
        reason = _first_line(error)
        raise ModelError(f"The published weights of {name} could not be loaded ({reason}). {advice}") from error


def describe(name: str, image_size: int = 224, num_classes: int = 5, **options: Any) -> ModelSummary:
    """Count parameters and multiply-adds, with further ``options`` of the model, without allocating or computing.

    Multiply-adds are half of what torch's FlopCounterMode counts with attention as plain matrix products: its fused CPU
    kernel goes uncounted.

    Raises:
        ModelError: Unknown model or option, or a photo size that it cannot take.
    """
    canonical = resolve(name)
    model = _prove(canonical, image_size, {"num_classes": num_classes, **options})
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _forward_on_meta(model, image_size)
    return ModelSummary(
        name=canonical,
        alias=next((alias for alias, target in ALIASES.items() if target == canonical), None),
        image_size=image_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
    )


def require_sizes(name: str, image_size: int, sizes: Iterable[int], **options: Any) -> None:
    """Make sure that a model which is built for one photo size takes others, too, without allocating or computing.

    Raises:
        ModelError: It does not.
    """
    canonical = resolve(name)
    model = _prove(canonical, image_size, options)
    for size in sorted(set(sizes)):
        try:
            _forward_on_meta(model, size)
        except Exception as error:  # timm and torch report a wrong shape in many ways
            raise ModelError(
                f"{name} is built for photos of one size and cannot begin with photos of {size} × {size} pixels. "
                "Leave --start-size out, or choose a model that takes any size, such as a ConvNeXt, EfficientNet or "
                "H-CoAtNet."
            ) from error


def _build(name: str, image_size: int | None, arguments: dict[str, Any]) -> nn.Module:
    if image_size is not None and get_pretrained_cfg_value(name, "fixed_input_size"):
        arguments = {**arguments, "img_size": image_size}
    try:
        model: nn.Module = timm.create_model(name, **arguments)
    except TypeError as error:
        # A DenseNet or VGG has no stochastic depth that could be switched off.
        if arguments.get("drop_path_rate") != 0 or "drop_path_rate" not in str(error):
            raise
        model = timm.create_model(name, **{**arguments, "drop_path_rate": None})
    return model


def _build_on_meta(name: str, image_size: int | None, arguments: dict[str, Any]) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _build(name, image_size, arguments).eval()


def _forward_on_meta(model: nn.Module, image_size: int) -> None:
    with torch.no_grad():
        model(torch.empty(1, 3, image_size, image_size, device="meta"))


def _prove(name: str, image_size: int, arguments: dict[str, Any]) -> nn.Module:
    """Build the model without memory and pass shapes through it, so that a mistake costs nothing."""
    try:
        return _build_and_pass(name, image_size, arguments)
    except ModelError:
        raise
    except Exception as error:  # timm and torch report an impossible option or shape in many ways
        failure = error
    try:
        _build_on_meta(name, None, arguments)
    except Exception as error:
        raise _option_error(name, arguments, error) from error
    near = sorted(range(32, 1025, 32), key=lambda size: abs(size - image_size))[:6]
    working = [size for size in near if _takes(name, size, arguments)][:2]
    advice = f"Sizes that work: {', '.join(map(str, sorted(working)))}." if working else "Try its usual size."
    raise ModelError(f"{name} cannot take photos of {image_size} × {image_size} pixels. {advice}") from failure


def _build_and_pass(name: str, image_size: int, arguments: dict[str, Any]) -> nn.Module:
    model = _build_on_meta(name, image_size, arguments)
    _forward_on_meta(model, image_size)
    return model


def _takes(name: str, image_size: int, arguments: dict[str, Any]) -> bool:
    try:
        _build_and_pass(name, image_size, arguments)
    except Exception:
        return False
    return True


def _option_error(name: str, arguments: dict[str, Any], error: Exception) -> ModelError:
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not isinstance(error, TypeError) or unknown is None:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if value is not None)
        return ModelError(f"{name} cannot be built with {given}: {_first_line(error)}")
    near = difflib.get_close_matches(unknown[1], _valid_options(name), n=3, cutoff=0.4) or _valid_options(name)
    return ModelError(f"{name} takes no option {unknown[1]!r}. The nearest that it takes: {', '.join(near)}.")


def _valid_options(name: str) -> list[str]:
    plumbing = {"self", "kwargs", "pretrained", "num_classes", "img_size", "in_chans", "cfg", "device", "dtype"}
    kinds = type(_build_on_meta(name, None, {})).__mro__
    sources: list[Any] = [timm.model_entrypoint(name), *kinds[: kinds.index(nn.Module)]]
    names = [
        option.name
        for source in sources
        for option in inspect.signature(source).parameters.values()
        if option.kind is not option.VAR_KEYWORD
    ]
    return [option for option in dict.fromkeys(names) if option not in plumbing]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
