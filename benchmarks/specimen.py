"""A small finished run and its bundle, for the parts that need something to predict with."""

from dataclasses import dataclass
from pathlib import Path

from collection import Collection, collect, read_photos
from measured import CommandError, hcoatnet, measured
from setting import Setting

SIZE = 64
PHOTOS = 48


@dataclass(frozen=True)
class Specimen:
    """What was made.

    Attributes:
        run: The run directory.
        bundle: Its bundle; None where it could not be made.
        reason: Why not.
        collection: Its photos.
    """

    run: Path
    bundle: Path | None
    reason: str
    collection: Collection


def make_specimen(setting: Setting) -> Specimen:
    """One epoch of the grid's model on a few small photos, and its bundle; made once a work folder.

    Raises:
        CommandError: It could not be trained.
    """
    folder = setting.work / "specimen"
    photos = read_photos(setting.data, setting.split)
    collection = collect(photos, folder / "photos", train=PHOTOS, val=PHOTOS // 2)
    run, bundle = folder / "run", folder / "bundle"
    if not (run / "metrics.json").exists():
        manifest, split = collection.tables("specimen")
        command = hcoatnet(
            "train", "--data", str(manifest), "--split", str(split), "--out", str(run), "--protocol", "quick",
            "--model", setting.scale.scaling_model, "--image-size", str(SIZE), "--epochs", "1", "--device", "cpu",
        )  # fmt: skip
        measured(command, setting.threads, folder / "train.log")
    if bundle.exists():
        return Specimen(run, bundle, "", collection)
    try:
        measured(hcoatnet("bundle", str(run), str(bundle)), setting.threads, folder / "bundle.log")
    except CommandError as error:
        return Specimen(run, None, str(error), collection)
    return Specimen(run, bundle, "", collection)
