"""``hcoatnet bundle``: from a run or study to a folder that a colleague can use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models._hub import save_config_for_hf
from torch import nn

from hcoatnet import __version__
from hcoatnet.config import TrainConfig
from hcoatnet.data.images import MEAN, STD, open_photo, preprocess
from hcoatnet.deploy import bundle as layout
from hcoatnet.deploy.bundle import Bundle
from hcoatnet.deploy.bundle_card import NOT_STATED, bundle_card, card_content, read_author_entries
from hcoatnet.deploy.bundle_readme import readme
from hcoatnet.deploy.bundle_source import BundleSource, read_source
from hcoatnet.deploy.export import ExportFacts, export_checked
from hcoatnet.deploy.parity import MOST_PHOTOS, Parity, batches
from hcoatnet.deploy.run_photos import run_photos
from hcoatnet.deploy.torch_backend import member_prefix
from hcoatnet.errors import BundleError
from hcoatnet.files import replace_folder, sha256_of_file, write_bytes, write_json, write_text
from hcoatnet.models import registry
from hcoatnet.models.views import of_one_view, with_views
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import trained_model

MADE_WITH = ("timm", "torch", "onnx", "onnxscript", "onnxruntime")
DIGESTS = ("config_sha256", "manifest_sha256", "split_sha256", "weights_sha256")


@dataclass(frozen=True, eq=False)
class Made:
    """A bundle that was made.

    Attributes:
        bundle: It, as a reader finds it.
        parity: How close its ONNX model comes to torch.
    """

    bundle: Bundle
    parity: Parity

    @property
    def missing(self) -> tuple[str, ...]:
        """Entries of its card that only the author can fill, and has not."""
        sections = self.bundle.card["sections"]
        return tuple(entry["name"] for section in sections for entry in section["entries"] if entry["missing"])


def make_bundle(
    folder: Path,
    out: Path,
    *,
    model: str | None = None,
    init: str | None = None,
    licence: str | None = None,
    author: Path | None = None,
    data: Path | None = None,
) -> Made:
    """Write a bundle of a run, or of the folds of one model of a study.

    Args:
        folder: A finished run, or a study in which the model's runs are finished.
        out: Where the bundle goes. An earlier bundle there is replaced; nothing else is.
        model: Row of the study.
        init: Its kind of initial weights, where there are two.
        licence: Licence of the weights, best as an SPDX name.
        author: YAML file of card entries that only the author knows.
        data: Where the photos are now, if they have moved: their folder, or the manifest in it.

    Raises:
        BundleError: There is nothing that can be bundled, ``out`` holds something else, the ONNX model does not answer
            as torch does, or the extra ``onnx`` is not installed. Nothing is written then.
        RunError: A run is not finished, or its files or photos are gone or do not fit together.
        EvidenceError: Runs of the model are not finished, or cannot stand side by side.
    """
    place = out.resolve()
    _check_place(place, out)
    entries = {} if author is None else read_author_entries(author)
    if licence is not None and (not licence.strip() or "\n" in licence):
        raise BundleError("--licence must be the name of a licence on one line, such as CC-BY-4.0.")
    source = read_source(folder, model, init)
    models = [_trained(run, source) for run in source.runs]
    stated = licence or NOT_STATED
    card = bundle_card(source, stated, _origin(source.config, models[0]), entries)
    done: list[tuple[Bundle, Parity]] = []

    def fill(new: Path) -> None:
        facts = ExportFacts(
            source.name, registry.resolve(source.config.model), source.classes, source.config.image_size
        )
        answering = [with_views(model, source.config.views) for model in models]
        parity = export_checked(answering, batches(_some_photos(source, data)), new / layout.ONNX, facts)
        _write_weights(models, new / layout.WEIGHTS)
        _write_config(source, models, stated, new / layout.CONFIG)
        write_json(new / layout.CALIBRATION, source.calibration)
        write_json(new / layout.CARD, card_content(card))
        write_text(new / layout.README, readme(source, stated, card))
        hashes = {name: sha256_of_file(new / name) for name in layout.LISTED}
        write_json(new / layout.HASHES, {"format": layout.BUNDLE_FORMAT, "sha256": hashes})
        done.append((Bundle.open(new), parity))

    replace_folder(place, fill)
    ((bundle, parity),) = done
    return Made(replace(bundle, folder=out), parity)


def _check_place(place: Path, out: Path) -> None:
    """Refuse to replace anything but an earlier bundle."""
    if place.is_dir():
        foreign = sorted({entry.name for entry in place.iterdir()} - {*layout.LISTED, layout.HASHES})
        if foreign or (any(place.iterdir()) and not layout.is_bundle(place)):
            what = f"holds other files ({', '.join(foreign[:3])})" if foreign else "is no earlier bundle"
            raise BundleError(f"{out} {what}. Give a new folder, an empty one, or that of an earlier bundle.")
    elif place.exists():
        raise BundleError(f"{out} is a file. Give a folder.")


def _trained(run: RunDirectory, source: BundleSource) -> nn.Module:
    return of_one_view(trained_model(run, source.config, len(source.classes), torch.device("cpu")))


def _some_photos(source: BundleSource, data: Path | None) -> NDArray[np.float32]:
    """Validation photos of every run, evenly spread over its table, as many as the comparison takes."""
    share = -(-MOST_PHOTOS // len(source.runs))
    photos = []
    for run in source.runs:
        files = run_photos(run, "val", data).spread(share)
        photos += [preprocess(open_photo(file), source.config.image_size) for file in files]
    return np.stack(photos)


def _write_weights(models: Sequence[nn.Module], path: Path) -> None:
    """All members in one file. ``format: pt`` is what hubs and loaders expect in its metadata."""
    from safetensors.torch import save

    tensors = {
        member_prefix(number, len(models)) + name: tensor.detach().contiguous()
        for number, model in enumerate(models)
        for name, tensor in model.state_dict().items()
    }
    write_bytes(path, save(tensors, metadata={"format": "pt"}))


def _write_config(source: BundleSource, models: Sequence[nn.Module], licence: str, path: Path) -> None:
    """Write timm's own description of the network, and ours beside it.

    For several members timm would build one network with random weights and say nothing. It refuses a name that it does
    not know.
    """
    size = source.config.image_size
    preprocessing = {
        "input_size": (3, size, size),
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": "bicubic",
        "mean": [round(float(value), 6) for value in MEAN],
        "std": [round(float(value), 6) for value in STD],
    }
    ours = {"label_names": list(source.classes), layout.FACTS: _facts(source, licence)}
    save_config_for_hf(models[0], str(path), model_config=ours, data_config=preprocessing)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["pretrained_cfg"].pop("tag", None)  # of other weights of this architecture, as is their licence
    content["pretrained_cfg"]["license"] = licence
    if len(models) > 1:
        content["architecture"] = f"{len(models)} x {content['architecture']}"
    write_json(path, content)


def _facts(source: BundleSource, licence: str) -> dict[str, Any]:
    config = source.config
    return {
        "name": source.name,
        "architecture": registry.resolve(config.model),
        "options": dict(config.model_options),
        "classes": list(source.classes),
        "image_size": config.image_size,
        "members": len(source.runs),
        "views": config.views,
        "parameters": source.results[0]["parameters"],
        "init": config.init_kind,
        "licence": licence,
        "channels_last": config.channels_last,
        "versions": {"hcoatnet": __version__, **{name: metadata.version(name) for name in MADE_WITH}},
        "trained": [
            {**_place(run.settings()), **{name: results[name] for name in DIGESTS}}
            for run, results in zip(source.runs, source.results, strict=True)
        ],
    }


def _place(config: TrainConfig) -> dict[str, int]:
    return {"seed": config.seed, "repeat": config.repeat, "fold": config.fold}


def _origin(config: TrainConfig, model: nn.Module) -> str | None:
    """What timm says of the licence of the weights that training began from; None from scratch."""
    if config.init_kind == "scratch":
        return None
    published = vars(model)["pretrained_cfg"].get("license")
    known = f"timm states {published} for" if published else "timm states no licence for"
    if config.init_file is None:
        return f"Training began from published weights; {known} them"
    return f"Training began from a file, whose licence is not recorded; {known} the weights that it publishes"
