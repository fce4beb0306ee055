"""Photos of a finished run, on which what is made of it is checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hcoatnet.errors import RunError
from hcoatnet.training.preparation import stored_data
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import subset_rows


@dataclass(frozen=True)
class RunPhotos:
    """Photos of one subset of a run.

    Attributes:
        paths: Their files.
        labels: Their true classes.
    """

    paths: Sequence[Path]
    labels: Sequence[str]

    def spread(self, count: int) -> Sequence[Path]:
        """At most so many of the files, evenly spread over all."""
        places = np.unique(np.linspace(0, len(self.paths) - 1, count).round().astype(int))
        return [self.paths[place] for place in places]


def run_photos(run: RunDirectory, subset: str, data: Path | None = None) -> RunPhotos:
    """The photos of ``train``, ``val`` or ``test`` of a run; each is there.

    Args:
        run: The run.
        subset: Of its split.
        data: Where the photos are now, if they have moved: their folder, or the manifest in it.

    Raises:
        RunError: They are not where they were, or the run's files do not fit together.
    """
    config = run.settings()
    if data is not None:
        config = replace(config, data=data)
    advice = "What is made of a run is checked on its photos: say with --data where their folder is now."
    if config.data is None or not config.data.exists():
        raise RunError(f"The photos of {run.path} are not at {config.data}. {advice}")
    prepared = stored_data(config, run)
    rows, folder = subset_rows(prepared, subset), prepared.manifest.folder
    missing = [path for path in rows["path"] if not (folder / path).is_file()]
    if missing:
        count = f"{len(missing)} of {len(rows)} {subset} photos of {run.path}"
        raise RunError(f"{count} are not in {folder}, such as {missing[0]}. {advice}")
    return RunPhotos([folder / path for path in rows["path"]], rows["label"].tolist())
