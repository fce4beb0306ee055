"""Photos from whatever a user names: a folder, or a manifest."""

from pathlib import Path

from hcoatnet.data.manifest import Manifest, Progress, read_manifest, require_photos
from hcoatnet.data.sources.folder import scan_folder
from hcoatnet.errors import DataError


def load_data(source: Path, progress: Progress | None = None) -> tuple[Manifest, tuple[str, ...]]:
    """Photos of a folder, which is scanned where it is, or of a manifest.

    Returns:
        The manifest, and notes on what was decided while scanning, to be shown to the user.

    Raises:
        DataError: If there is nothing usable at ``source``.
        DataProblems: If photos are missing or cannot be opened, or labels contradict each other.
    """
    if source.is_dir():
        result = scan_folder(source, progress)
        return result.manifest, result.notes
    if not source.exists():
        raise DataError(
            f"{source}: no such file or folder. Give a folder with one folder of photos a class, or a manifest."
        )
    manifest = read_manifest(source)
    require_photos(manifest)
    return manifest, ()
