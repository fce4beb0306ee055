"""The photos that all contestants are given: a folder in the layout that scripts read, a manifest and split for us."""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

SUBSETS = ("train", "val", "test")
COLUMNS = ("path", "label", "group", "sha256", "width", "height")


@dataclass(frozen=True)
class Photo:
    """One row of the manifest and split."""

    file: Path
    label: str
    group: str
    sha256: str
    width: int
    height: int
    subset: str


@dataclass(frozen=True)
class Collection:
    """Photos laid out as ``folder/{train,val,test}/CLASS/``.

    Attributes:
        folder: Where they lie.
        photos: All of them.
    """

    folder: Path
    photos: tuple[Photo, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted."""
        return tuple(sorted({photo.label for photo in self.photos}))

    def count(self, subset: str) -> int:
        """Photos of a subset."""
        return sum(photo.subset == subset for photo in self.photos)

    def tables(self, name: str) -> tuple[Path, Path]:
        """A manifest and a split file in a new folder of their own, whose cache nobody has filled."""
        place = self.folder.parent / "tables" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        manifest, split = place / "manifest.csv", place / "split.csv"
        rows, parts = [",".join(COLUMNS)], ["path,group,subset"]
        for photo in sorted(self.photos, key=lambda one: str(one.file)):
            path = Path(os.path.relpath(photo.file, place)).as_posix()
            rows.append(f"{path},{photo.label},{photo.group},{photo.sha256},{photo.width},{photo.height}")
            parts.append(f"{path},{photo.group},{photo.subset}")
        manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
        split.write_text("\n".join(parts) + "\n", encoding="utf-8")
        return manifest, split


@cache
def read_photos(data: Path, split: Path | None) -> tuple[Photo, ...]:
    """The photos of a manifest with their subsets: of a split file, of its first cell, or of a split made here."""
    from hcoatnet.data.manifest import read_manifest
    from hcoatnet.data.splits import Folds, hold_out, read_split

    manifest = read_manifest(data)
    chosen = hold_out(manifest) if split is None else read_split(split, manifest)
    if isinstance(chosen, Folds):
        chosen = chosen.cell(0, 0)
    rows = manifest.table[["path", "label", "sha256", "width", "height"]].merge(chosen.table, on="path")
    return tuple(
        Photo(manifest.folder / row.path, row.label, row.group, row.sha256, row.width, row.height, row.subset)
        for row in rows.itertuples()
    )


def thin(photos: Sequence[Photo], count: int | None) -> list[Photo]:
    """So many photos with the same shares of the classes, every class among them; all where ``count`` is None."""
    by_label: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        by_label[photo.label].append(photo)
    ranked = [(rank / len(same), photo) for same in by_label.values() for rank, photo in enumerate(same)]
    return [photo for _, photo in sorted(ranked, key=lambda pair: pair[0])][:count]


def collect(
    photos: Sequence[Photo],
    folder: Path,
    *,
    train: int | None = None,
    val: int | None = None,
    label: Callable[[int, Photo], str] | None = None,
) -> Collection:
    """Copy photos into ``folder``, fewer of them and under other labels where asked.

    Args:
        photos: The photos, with their subsets.
        folder: Where they are laid out; what is there is removed.
        train: Training photos to keep; None for all.
        val: Validation and as many test photos to keep; None for all.
        label: Gives a photo's class from its number within its subset; None keeps its own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    chosen = []
    for subset, count in zip(SUBSETS, (train, val, val), strict=True):
        same = thin([photo for photo in photos if photo.subset == subset], count)
        for number, photo in enumerate(same):
            name = photo.label if label is None else label(number, photo)
            target = folder / subset / name / f"{number:06}{photo.file.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo.file, target)
            chosen.append(replace(photo, file=target, label=name))
    return Collection(folder, tuple(chosen))
