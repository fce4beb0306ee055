"""The model behind the server: from photos to answers, and what is said of it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hcoatnet.deploy.answers import Answer
from hcoatnet.deploy.bundle import Bundle
from hcoatnet.deploy.classifier import BATCH, Classifier, load_classifier
from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.photos import Photo, read_photos
from hcoatnet.deploy.server.schemas import NOTICE
from hcoatnet.deploy.server.uploads import Upload
from hcoatnet.explain.token_maps import draw_kept


@dataclass(frozen=True, eq=False)
class Served:
    """A model that is served; safe to use from several threads.

    Attributes:
        classifier: Answers photos.
        facts: What ``GET /v1/model`` says of it, without its rules and the server's limits.
    """

    classifier: Classifier
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path, **settings: Any) -> "Served":
        """Load a bundle.

        Args:
            folder: A bundle.
            settings: Of the prediction sets, the abstain threshold and the threads, as
                :func:`hcoatnet.deploy.classifier.load_classifier` takes them.

        Raises:
            BundleError: It is no bundle, damaged, or of a newer version.
            EvidenceError: The calibration was not fitted for such a setting.
        """
        bundle = Bundle.open(folder)
        classifier = load_classifier(bundle, backend="onnx", **settings)
        facts = {
            "name": bundle.name,
            "architecture": bundle.architecture,
            "classes": list(bundle.classes),
            "image_size": bundle.image_size,
            "members": bundle.members,
            "prunes": classifier.prunes,
            "parameters": bundle.parameters,
            "init": bundle.init,
            "licence": bundle.licence,
            "version": bundle.versions.get("hcoatnet", "not stated"),
            "sha256": bundle.sha256,
            "calibration": {
                key: bundle.calibration.get(key) for key in ("source", "photos", "groups", "approximate_because")
            },
            "card": dict(bundle.card),
        }
        return cls(classifier, facts)

    def predict(self, uploads: Sequence[Upload], limits: Limits, *, trace: bool, overlay: bool) -> dict[str, Any]:
        """The body of an answer to ``POST /v1/predict``.

        Args:
            uploads: The photos.
            limits: What is let in.
            trace: Whether to tell what the model kept.
            overlay: Whether to draw it.

        Raises:
            Refusal: A photo is none, too large or damaged.
        """
        photos = read_photos(uploads, self.classifier.image_size, limits, keep_small=overlay and self.classifier.prunes)
        answers: list[Answer] = []
        for start in range(0, len(photos), BATCH):
            some = photos[start : start + BATCH]
            answers += self.classifier.answer(np.stack([one.pixels for one in some]), [one.name for one in some])
        described = [
            _describe(answer, photo, trace=trace, overlay=overlay)
            for answer, photo in zip(answers, photos, strict=True)
        ]
        return {"model": self.facts["name"], "notice": NOTICE, "answers": described}

    def describe(self, limits: Limits, needs_token: bool) -> dict[str, Any]:
        """The body of an answer to ``GET /v1/model``."""
        rules, thresholds = self.classifier.rules, self.classifier.rules.thresholds
        return {
            **self.facts,
            "notice": NOTICE,
            "rules": {
                "method": None if thresholds is None else thresholds.method,
                "level": rules.level,
                "class_conditional": None if thresholds is None else thresholds.class_conditional,
                "error_rate": rules.error_rate,
                "abstain_below": rules.abstain_below,
                "no_threshold_because": rules.no_threshold_because,
                "no_sets_because": rules.no_sets_because,
                "temperature": rules.temperature,
            },
            "limits": {
                "photos": limits.photos,
                "bytes": limits.bytes,
                "request_bytes": limits.request_bytes,
                "pixels": limits.pixels,
            },
            "needs_token": needs_token,
        }


def _describe(answer: Answer, photo: Photo, *, trace: bool, overlay: bool) -> dict[str, Any]:
    described = {**answer.to_dict(), "width": photo.width, "height": photo.height}
    if not trace:
        described["traces"] = ()
    if overlay:
        described["overlays"] = _overlays(answer, photo)
    return described


def _overlays(answer: Answer, photo: Photo) -> list[str]:
    if photo.small is None:
        return []
    first = answer.traces[0]
    return [_data_address(draw_kept(photo.small, first, stage)) for stage in range(len(first.stages) + 1)]


def _data_address(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
