"""A trained model in other hands: ``explain``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from hcoatnet.errors import ConfigError, DataProblems
from hcoatnet.terminal import report_error, say

if TYPE_CHECKING:
    from hcoatnet.explain.writing import Written

SOME_BAD = 1


def explain(
    model: Path,
    /,
    *photos: str,
    out: Path | None = None,
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    checks: bool = True,
    gallery: bool = False,
    subset: Literal["val", "test"] = "test",
    count: int = 12,
) -> None:
    """Show what speaks for an answer: class-activation map, kept tokens, and whether the map can be believed.

    With photos: a figure and the numbers of each, and explanations.html with all. With --gallery: a page of a run's
    own photos, those named rightly, those named wrongly, and the least certain. Photos that cannot be opened are
    listed, and the exit code is 1.

    Args:
        model: Run directory, or a bundle.
        photos: Photos to explain: files, folders (with all below them), quoted patterns such as 'photos/*.jpg'.
        out: Folder to write to; `explanations` by default, RUN/gallery for a gallery.
        class_: Class to explain; by default the one that the model finds most probable.
        checks: Compare the maps with random orders (deletion, insertion) and with untrained models.
        gallery: Make the gallery page of a run instead.
        subset: Whose photos the gallery shows; a look at `test` is recorded in the test ledger.
        count: Photos in each part of the gallery.
    """
    if gallery:
        if photos or class_ is not None:
            raise ConfigError("--gallery shows the run's own photos: leave other photos and --class out.")
        from hcoatnet.explain.gallery import write_gallery

        _say(write_gallery(model, out=out, subset=subset, count=count, checks=checks))
        return
    if not photos:
        raise ConfigError("No photos are named. Give files or folders after the model, or --gallery.")
    from hcoatnet.deploy.photo_search import find_photos
    from hcoatnet.explain.subject import load_subject
    from hcoatnet.explain.writing import write_explanations

    found = find_photos(photos, ())
    _say(write_explanations(load_subject(model), found, out or Path("explanations"), label=class_, checks=checks))


def _say(written: "Written") -> None:
    from hcoatnet.report.words import counted, duration

    say(f"Explained {counted(written.explained, 'photo')} in {duration(written.seconds)}.", f"Page: {written.page}")
    if written.problems:
        report_error(DataProblems("Photos that cannot be opened were left out.", written.problems))
        raise SystemExit(SOME_BAD)


def register(app: App) -> None:
    """Add these commands to the command line."""
    app.command(explain)
