"""A trained model in other hands: ``bundle``."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from hcoatnet.terminal import say


def bundle(
    folder: Path,
    out: Path,
    *,
    model: str | None = None,
    init: Literal["scratch", "pretrained"] | None = None,
    licence: str | None = None,
    card: Path | None = None,
    data: Path | None = None,
) -> None:
    """Make a bundle: a folder with a trained model and all that a colleague needs to use it.

    Of a study, the models of all folds (first seed and repeat) answer together: their calibrated probabilities are
    averaged. An earlier bundle in OUT is replaced, anything else is left alone. Nothing is uploaded.

    Args:
        folder: Run or study directory.
        out: The bundle's folder.
        model: Row of the study; needed if it has several.
        init: Which initial weights, if the study trained that row from both.
        licence: Licence of the weights, as an SPDX name such as CC-BY-4.0.
        card: YAML file of model card entries that only you know, such as `Author and contact: …`.
        data: Where the photos are now, if they have moved: their folder, or the manifest in it.
    """
    from hcoatnet.deploy.bundling import make_bundle

    made = make_bundle(folder, out, model=model, init=init, licence=licence, author=card, data=data)
    parity = made.parity
    say(
        f"ONNX Runtime answers as torch does: the logits of {parity.photos} photos differ by at most "
        f"{parity.logit_difference:.1g}."
    )
    if made.missing:
        say(f"The card lacks what only you know (--licence, --card): {'; '.join(made.missing)}.")
    say(f"Bundle: {out}")


def register(app: App) -> None:
    """Add these commands to the command line."""
    app.command(bundle)
