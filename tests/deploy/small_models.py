"""Small untrained models whose numbers are lively, and files made of them."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from hcoatnet.deploy.export import ExportFacts, export_model
from hcoatnet.models import registry

SIZE = 64
CLASSES = ("blue", "green", "red")


@functools.cache
def small_model(seed=0, name="h_coatnet", size=SIZE, **options):
    """A model in evaluation mode, which must not be changed."""
    if name == "h_coatnet":
        options = {"backbone": "test_convnext", **options}
    torch.manual_seed(seed)
    model = registry.create(name, len(CLASSES), size, **options)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "pos_embed" in key or key.endswith("gamma"):
                parameter.normal_(std=0.5)
    return model.eval()


def facts(architecture="h_coatnet", size=SIZE):
    return ExportFacts("a run", architecture, CLASSES, size)


def some_photos(count, seed=0, size=SIZE):
    return np.random.default_rng(seed).standard_normal((count, 3, size, size), dtype=np.float32)


def export_to(folder, *models, **about):
    path = folder / "model.onnx"
    export_model(models, path, facts(**about))
    return path


@functools.cache
def exported_bytes():
    """The file of ``small_model()``, made once."""
    with tempfile.TemporaryDirectory() as folder:
        return export_to(Path(folder), small_model()).read_bytes()


def exported_file(folder):
    path = folder / "model.onnx"
    path.write_bytes(exported_bytes())
    return path
