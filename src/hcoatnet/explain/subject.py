"""The model that is explained: a run or a bundle, with all that explaining asks of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hcoatnet.deploy.bundle import Bundle, is_bundle
from hcoatnet.deploy.classifier import Classifier, load_classifier
from hcoatnet.deploy.torch_backend import TorchBackend
from hcoatnet.errors import ConfigError
from hcoatnet.explain.class_activation import class_activation
from hcoatnet.explain.faithfulness import Probability
from hcoatnet.models.activation_maps import activation_place
from hcoatnet.models.views import count_views, of_one_view
from hcoatnet.seeding import cpu_draws
from hcoatnet.training.inference import memory_layout
from hcoatnet.training.run_directory import RunDirectory


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model, or several that are averaged.

    Attributes:
        name: What the run or the bundle is called.
        classifier: Its answers, as ``predict`` gives them.
        models: Its members, which see each photo as it is.
        untrained: The architecture with weights drawn anew; the argument numbers the draw.
    """

    name: str
    classifier: Classifier
    models: tuple[nn.Module, ...]
    untrained: Callable[[int], nn.Module]

    @property
    def place(self) -> str:
        """Where its maps are taken, in words."""
        return activation_place(self.models[0]).words

    @property
    def on_views(self) -> tuple[str, ...]:
        """What is to be said where the classifier averages views of a photo and its maps show one."""
        count = count_views(cast(TorchBackend, self.classifier.backend).models[0])
        return (f"the answer averages {count} views; all else is of the photo as it is",) if count > 1 else ()

    def class_index(self, label: str) -> int:
        """Number of a class.

        Raises:
            ConfigError: The model knows no such class.
        """
        if label not in self.classifier.classes:
            raise ConfigError(
                f"The model knows no class {label!r}. Give --class one of {', '.join(self.classifier.classes)}."
            )
        return self.classifier.classes.index(label)

    def probability_of(self, index: int) -> Probability:
        """What the members answer for one class of photos as they are, calibrated and averaged."""

        def ask(photos: NDArray[np.float32]) -> NDArray[np.float64]:
            return self.classifier.rules.probabilities(self._as_it_is.run(photos).logits)[:, index]

        return ask

    @cached_property
    def _as_it_is(self) -> TorchBackend:
        return TorchBackend(self.models, self.classifier.image_size)


def maps_of(model: nn.Module, photos: NDArray[np.float32], classes: NDArray[np.intp]) -> NDArray[np.float32]:
    """Signed class-activation maps (N, H, W) of preprocessed photos (N, 3, S, S), each for the class of its number."""
    batch = torch.from_numpy(photos).contiguous(memory_format=memory_layout(model))
    return class_activation(model, batch, torch.from_numpy(classes)).signed


def load_subject(path: Path) -> Subject:
    """Load a finished run, or a bundle.

    Raises:
        RunError: The run is not finished, or its files do not fit together.
        BundleError: It is neither, or the bundle is damaged.
        ModelError: No place for a class-activation map is known for the model.
    """
    if is_bundle(path):
        bundle = Bundle.open(path)
        classifier = load_classifier(bundle, backend="torch")
        name, architecture, options = bundle.name, bundle.architecture, bundle.options
    else:
        classifier = load_classifier(path, backend="torch")
        run = RunDirectory(path)
        settings = run.settings()
        name, architecture = run.name, settings.model
        options = cast(dict[str, Any], settings.model_options)

    def untrained(draw: int) -> nn.Module:
        from hcoatnet.models import registry

        classes, size = len(classifier.classes), classifier.image_size
        with cpu_draws(draw):
            return registry.create(architecture, classes, size, proven=True, **options).eval()

    members = cast(TorchBackend, classifier.backend).models
    subject = Subject(name, classifier, tuple(map(of_one_view, members)), untrained)
    activation_place(subject.models[0])
    return subject
