"""Weights from files: read safely, fit to the model, and say what did not fit."""

import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.models import clean_state_dict
from torch import nn

from hcoatnet.errors import ModelError
from hcoatnet.models.h_coatnet import HCoAtNet
from hcoatnet.models.tensor_files import is_plain, load_tensors

StateDict = dict[str, torch.Tensor]
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a file of weights into ``model``.

    Taken are the model's own weights, timm's (for H-CoAtNet also those of its backbone, for GFT those of a vision
    transformer), and files whose tensors have other names but stand in the same order with the same shapes. Position
    embeddings and tables are resampled to the model's photo size. A classifier of other classes is left out.

    Args:
        model: Changed in place, unless an error is raised.
        path: ``.safetensors``, or ``.pth``, ``.pt``, ``.bin`` with tensors only.

    Returns:
        One line for everything that was adapted, left out or remains random.

    Raises:
        ModelError: The file cannot be read, holds more than tensors, or fits another model.
    """
    adapted, _, notes = _fit(model, path)
    model.load_state_dict(adapted, strict=False)
    return notes


def random_parameters(model: nn.Module, path: Path | None) -> frozenset[str]:
    """Names of the parameters that weights leave to chance: the classifier always, and parts that only the model has.

    Args:
        model: The model.
        path: The file of weights; None for those that timm publishes, of a backbone alone: H-CoAtNet's last norm then
            counts as left to chance, though a ConvNeXt brings it.

    Raises:
        ModelError: As :func:`load_weights`.
    """
    random_keys = set() if path is None else _fit(model, path)[1]
    parts = (*_classifier_names(model), *(getattr(model, "own_parts", ()) if path is None else ()))
    names = (name for name, _ in model.named_parameters())
    return frozenset(name for name in names if name in random_keys or _stands_in(name, parts))


def _fit(model: nn.Module, path: Path) -> tuple[StateDict, set[str], tuple[str, ...]]:
    """What of a file goes into ``model``, the names that stay random, and what to say."""
    state = read_state_dict(path)
    notes = []
    if by_order := _match_by_order(state, model):
        state = by_order
        notes.append(f"{path.name}: tensors have other names and were matched by their order and shapes.")
    adapted = _adapt(state, model, path)
    resampled = [key for key in adapted if key in state and adapted[key].shape != state[key].shape]
    if resampled:
        notes.append(f"Resampled to this photo size: {_names(resampled)}.")
    adapted, random_head, head_notes = _fit_classifier(adapted, model)
    adapted, random_parts, part_notes = _fit_parts(adapted, model)
    _require_fit(adapted, model, random_head | random_parts, path)
    return adapted, random_head | random_parts, (*notes, *head_notes, *part_notes)


def read_state_dict(path: Path) -> StateDict:
    """Tensors of a file by name, without wrappers' prefixes and without ``state_dict`` or ``model`` around them.

    Raises:
        ModelError: The file is missing, of another kind, damaged, or holds Python objects.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{path}: weights must be a file ending in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    try:
        content: Any = (
            safetensors.torch.load_file(path) if path.suffix.lower() == ".safetensors" else load_tensors(path)
        )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: not loaded, because it holds more than tensors or is damaged. Save the state dict alone, best as "
            ".safetensors."
        ) from error
    except Exception as error:  # a damaged file can make the readers raise almost anything
        raise ModelError(f"{path}: cannot be read as weights; it is damaged or of another format.") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ModelError(f"{path}: holds no tensors by name. Save the state dict of a model.")
    if odd := [key for key, value in tensors.items() if not is_plain(value)]:
        raise ModelError(f"{path}: {_names(odd)} not held number by number. Save the plain state dict of a model.")
    return dict(clean_state_dict(tensors))


def _match_by_order(state: StateDict, model: nn.Module) -> StateDict | None:
    """``state`` under the names of the model or of its backbone, if no name but the order and every shape agrees."""
    references = [model.state_dict()]
    if isinstance(model, HCoAtNet):
        with torch.device("meta"):
            references.append(timm.create_model(model.backbone_name).state_dict())
    if any(state.keys() & reference.keys() for reference in references):
        return None
    for reference in references:
        if len(reference) == len(state) and all(
            _same_place(*pair) for pair in zip(state.items(), reference.items(), strict=True)
        ):
            return dict(zip(reference, state.values(), strict=True))
    return None


def _same_place(found: tuple[str, torch.Tensor], wanted: tuple[str, torch.Tensor]) -> bool:
    # The last part of the name (weight, bias, running_mean ...) tells tensors of one layer apart; the first dimension
    # of a classifier is free, as it is replaced where it differs.
    same_kind = found[0].rpartition(".")[2] == wanted[0].rpartition(".")[2]
    is_classifier = wanted[0].startswith(("classifier.", "head.fc.", "fc.", "head.weight", "head.bias"))
    start = 1 if is_classifier else 0
    return same_kind and found[1].shape[start:] == wanted[1].shape[start:]


def _adapt(state: StateDict, model: nn.Module, path: Path) -> StateDict:
    """Apply the ``checkpoint_filter_fn`` that stands beside the model's class, as timm has it."""
    adapt: Callable[[StateDict, nn.Module], StateDict] | None = getattr(
        sys.modules[type(model).__module__], "checkpoint_filter_fn", None
    )
    if adapt is None:
        return state
    try:
        return dict(adapt(state, model))
    except Exception as error:  # these functions were written for checkpoints of their own model only
        raise ModelError(f"{path}: these are not weights of {type(model).__name__}.") from error


def _fit_classifier(state: StateDict, model: nn.Module) -> tuple[StateDict, set[str], list[str]]:
    """``state`` without a classifier of other classes, the names that stay random because of that, and what to say."""
    names = _classifier_names(model)
    theirs = {key: value.shape for key, value in state.items() if _stands_in(key, names)}
    ours = {key: value.shape for key, value in model.state_dict().items() if _stands_in(key, names)}
    if theirs == ours:
        return state, set(), []
    outputs = next((shape[0] for shape in theirs.values()), 0)
    found = f"The file's classifier has {outputs} classes and was left out" if theirs else "The file has no classifier"
    remains = f"; the one for {model.num_classes} classes starts random." if ours else "."
    return {key: value for key, value in state.items() if key not in theirs}, set(ours), [found + remains]


def _fit_parts(state: StateDict, model: nn.Module) -> tuple[StateDict, set[str], list[str]]:
    """``state`` without parts that the model has no place for, the names that the file lacks, and what to say.

    A model names both kinds: ``foreign_parts`` and ``own_parts``. Only a part that is missing whole may stay random.
    """
    notes = []
    foreign = [key for key in state if _stands_in(key, getattr(model, "foreign_parts", ()))]
    if foreign:
        notes.append(f"Not used, as {type(model).__name__} has no such part: {_names(foreign)}.")
    state = {key: value for key, value in state.items() if key not in foreign}
    random_keys = set()
    random_parts = []
    for part in getattr(model, "own_parts", ()):
        keys = {key for key in model.state_dict() if _stands_in(key, (part,))}
        if keys and not any(_stands_in(key, (part,)) for key in state):
            random_keys |= keys
            random_parts.append(part)
    if random_parts:
        notes.append(f"Not in the file, so these parts start random: {', '.join(random_parts)}.")
    return state, random_keys, notes


def _require_fit(state: StateDict, model: nn.Module, random_keys: set[str], path: Path) -> None:
    expected = {
        key: value
        for key, value in model.state_dict().items()
        if key not in random_keys and (key in state or not key.endswith("num_batches_tracked"))
    }
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    misshapen = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if not (missing or unexpected or misshapen):
        return
    details = [f"missing {_names(missing)}"] if missing else []
    details += [f"unknown {_names(unexpected)}"] if unexpected else []
    details += [
        f"{key} is {tuple(state[key].shape)} in the file and {tuple(expected[key].shape)} in the model"
        for key in misshapen[:1]
    ]
    matched = len(expected) - len(missing) - len(misshapen)
    raise ModelError(
        f"{path}: weights of another model: {matched} of the {len(expected)} tensors of this {type(model).__name__} "
        f"match ({'; '.join(details)}). Nothing was loaded."
    )


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Where the classifier stands; in distilled models there are two."""
    get_classifier: Any = model.get_classifier
    found = get_classifier()
    heads = found if isinstance(found, tuple) else (found,)
    return tuple(name for name, module in model.named_modules() if any(module is head for head in heads))


def _stands_in(key: str, parts: Iterable[str]) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def _names(keys: list[str], shown: int = 3) -> str:
    rest = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + rest
