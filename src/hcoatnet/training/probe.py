"""A linear probe: multinomial logistic regression on the features of a network that stays as it began.

It is fitted at once rather than by epochs, and then written into the network's own classifier: what comes out is an
ordinary run, whose model predicts like any other.
"""

import math
import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from hcoatnet.data.loading import TrainingPhotos, batches, evaluation_loader
from hcoatnet.data.pixels import HeldPhotos, Holding
from hcoatnet.errors import ModelError
from hcoatnet.evaluation.metrics import score
from hcoatnet.training.checkpoint import save_weights
from hcoatnet.training.history import append_history, start_history
from hcoatnet.training.inference import memory_layout
from hcoatnet.training.journal import Journal
from hcoatnet.training.loop import Learner, Material, Row, describe_weights, validate
from hcoatnet.training.run_directory import RunDirectory

INVERSE_PENALTIES = tuple(10.0**power for power in range(-4, 3))
"""Inverse strengths of the L2 penalty that are tried, the strongest first."""

ITERATIONS = 2000
TOLERANCE = 1e-3

Features = NDArray[np.float64]


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier of features.

    Attributes:
        weight: Shape (C, F).
        bias: Shape (C,).
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def logits(self, features: Features) -> NDArray[np.float64]:
        """Logits (N, C) of features (N, F)."""
        return features @ self.weight.T + self.bias


def fit_probe(learner: Learner, material: Material, run: RunDirectory, journal: Journal) -> None:
    """Fit the classifier of ``learner.model`` on the features of the training photos, and write the weights.

    The strength of the penalty is chosen on the validation photos by the run's monitor. Classes are weighted as in
    training; settings that only matter to gradient steps have no effect.

    Args:
        learner: Holds the network with its initial weights.
        material: Photos, class weights and classes. Training photos are seen as in evaluation, without random changes.
        run: Where history and weights go.
        journal: Where to speak.

    Raises:
        ModelError: The network has no linear classifier, or its features depend on it.
    """
    started = time.perf_counter()
    model, device = learner.model, learner.accelerator.device
    classifier = _classifier(model, learner.config.model)
    start_history(run.history_file, [])
    trained_on = cast(TrainingPhotos, material.training.dataset)
    labels = trained_on.labels.tolist()
    photos = HeldPhotos(trained_on.photos.files, Holding.for_evaluation(learner.config.image_size))
    features = extract_features(model, evaluation_loader(photos, learner.config, device), device)
    held_out = extract_features(model, material.validation, device)
    truth = material.validation_labels.numpy()
    weights = dict(enumerate(material.objective.weights.double().cpu().tolist()))
    best: tuple[float, float, LinearHead] | None = None
    for penalty in INVERSE_PENALTIES:
        head = fit_head(features, np.array(labels), penalty, weights)
        value = _monitored(learner.config.monitor, truth, head.logits(held_out))
        if best is None or value > best[0]:
            best = value, penalty, head
    assert best is not None
    _, penalty, head = best
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(head.weight))
        classifier.bias.copy_(torch.from_numpy(head.bias))
    _require_frozen_features(model, material, device, held_out, learner.config.model)
    validated = validate(model, material, learner.team)
    weighted = functional.cross_entropy(
        torch.from_numpy(head.logits(features)), torch.tensor(labels), weight=material.objective.weights.double().cpu()
    )
    seconds = time.perf_counter() - started
    row = Row(
        epoch=1,
        train_loss=float(weighted),
        **validated,
        learning_rate=0.0,
        photos_per_second=round(len(labels) / seconds, 1),
        seconds=round(seconds, 2),
        best=1,
    )
    learner.rows = [row]
    save_weights(model, run.weights_file, describe_weights(learner.config, material.classes, epoch=0))
    append_history(run.history_file, asdict(row))
    journal.say(
        f"Linear probe on {features.shape[1]:,} features of {len(labels):,} photos: inverse penalty {penalty:g} of "
        f"{INVERSE_PENALTIES[0]:g} to {INVERSE_PENALTIES[-1]:g}, val macro F1 {row.val_macro_f1:.4f}"
    )


def fit_head(
    features: Features, labels: NDArray[np.int64], inverse_penalty: float, class_weights: dict[int, float]
) -> LinearHead:
    """Multinomial logistic regression with an L2 penalty on standardised features, as one linear map of the raw ones.

    Args:
        features: Shape (N, F).
        labels: Class indices, shape (N,); every class occurs.
        inverse_penalty: scikit-learn's ``C``.
        class_weights: Weight of each class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    regression = LogisticRegression(C=inverse_penalty, max_iter=ITERATIONS, class_weight=class_weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # with hardly any penalty the last steps change nothing
        regression.fit((features - mean) / spread, labels)
    weight, bias = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / spread
    return LinearHead(weight, bias - weight @ mean)


def extract_features(model: nn.Module, loader: DataLoader[Any], device: torch.device) -> Features:
    """What the classifier reads of each photo, (N, F), in the loader's order, in evaluation mode."""
    model.eval()
    layout = memory_layout(model)
    forward_features: Any = model.forward_features
    forward_head: Any = model.forward_head
    rows = []
    with torch.inference_mode():
        for _, photos in batches(loader):
            maps = forward_features(photos.to(device, memory_format=layout))
            rows.append(forward_head(maps, pre_logits=True).float().cpu())
    return torch.cat(rows).numpy().astype(np.float64)


def _classifier(model: nn.Module, name: str) -> nn.Linear:
    get_classifier: Any = model.get_classifier
    classifier = get_classifier()
    if not isinstance(classifier, nn.Linear) or classifier.bias is None:
        raise ModelError(f"{name} does not end in a linear layer, so it cannot be probed. Choose another --model.")
    return classifier


def _require_frozen_features(
    model: nn.Module, material: Material, device: torch.device, before: Features, name: str
) -> None:
    after = extract_features(model, material.validation, device)
    if not np.allclose(after, before, rtol=TOLERANCE, atol=TOLERANCE * (np.abs(before).max() or 1.0)):
        raise ModelError(
            f"The features of {name} depend on its classifier, so a probe of them is not defined. Probe its backbone, "
            "or, for H-CoAtNet, add --model-options importance=norm."
        )


def _monitored(monitor: str, labels: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    if monitor == "loss":
        return -float(functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))
    value = getattr(score(labels, logits), monitor)
    return float(value) if math.isfinite(value) else -math.inf
