"""A trained model in other hands: ``export``."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from hcoatnet.config import Views
from hcoatnet.terminal import say


def export(
    run: Path,
    *,
    out: Path,
    format: Literal["onnx"] = "onnx",
    int8: bool = False,
    views: Views | None = None,
    data: Path | None = None,
) -> None:
    """Write a finished run's model as one ONNX file, if it answers there as it does here; else write nothing.

    Real validation photos are answered by torch and by ONNX Runtime, in batches of several sizes. With --int8 the file
    is also compared with float32 on all validation photos.

    Args:
        run: Run directory.
        out: File to write, ending in .onnx.
        format: Kind of file.
        int8: Smaller numbers: a file of about a third of the size, for some models also faster.
        views: Other views of a photo than the run was trained with.
        data: Where the run's photos are now, if they have moved: their folder.
    """
    from hcoatnet.deploy.run_export import export_run

    done = export_run(run, out, int8=int8, views=views, data=data)
    parity = done.parity
    sizes = ", ".join(map(str, parity.batch_sizes))
    say(
        f"ONNX Runtime answers as torch does: the logits of {parity.photos} photos, in batches of {sizes}, differ by "
        f"at most {parity.logit_difference:.1g}."
    )
    if done.agreement:
        say(done.agreement.line())
    say(f"Model: {done.path} ({done.path.stat().st_size / 1e6:.1f} MB)")


def register(app: App) -> None:
    """Add these commands to the command line."""
    app.command(export)
