"""The whole audit of a set of photos: what one runs before training."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.clusters import Cluster, Verdicts, read_verdicts
from hcoatnet.data.audit.duplicates import Duplicates, find_duplicates
from hcoatnet.data.audit.embedding import Embedding
from hcoatnet.data.audit.integrity import weight_of
from hcoatnet.data.audit.labels import LabelIssue, label_issues
from hcoatnet.data.audit.overlays import Cells, Overlay, find_overlays
from hcoatnet.data.audit.reading import Collection, read_photos
from hcoatnet.data.audit.self_test import SelfTest, self_test
from hcoatnet.data.audit.shortcuts import Probe, probe_shortcuts, source_columns
from hcoatnet.data.audit.straddling import Straddling, read_subsets, straddling, subsets_of_folders
from hcoatnet.data.manifest import Progress
from hcoatnet.data.sources.scan import Listing
from hcoatnet.errors import DataError

FORMAT = 1
WEIGHTS = ("error", "privacy", "warning", "note")
"""How weighty a problem can be, the weightiest first."""

Stages = Callable[[str], Progress]


@dataclass(frozen=True)
class Settings:
    """What an audit may use beyond the photos.

    Attributes:
        split: A split file, to look for copies in two subsets.
        verdicts: A person's verdicts on pairs of photos.
        predictions: Predictions tables, to look for wrong labels.
        source_columns: Further columns that say where a photo comes from.
        self_test_photos: Photos on which the audit measures itself; 0 leaves that out.
        seed: Seed of probes and self-test.
    """

    split: Path | None = None
    verdicts: Path | None = None
    predictions: Sequence[Path] = ()
    source_columns: Sequence[str] = ()
    self_test_photos: int = 200
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Audit:
    """Everything that was found.

    Attributes:
        collection: The photos, and what is wrong with any of them.
        sources: Columns that were taken to say where a photo comes from.
        overlays: Constant regions.
        probes: Shortcut probes; empty without labels.
        duplicates: Copies and near-copies.
        self_test: How well such copies are found on these photos, if it was measured.
        split: What was searched for straddling clusters (``split file`` or ``folders``), or None.
        straddling: Clusters in more than one subset.
        label_issues: Labels that predictions speak against.
        notes: Sentences for the user.
    """

    collection: Collection
    sources: tuple[str, ...]
    overlays: tuple[Overlay, ...]
    probes: tuple[Probe, ...]
    duplicates: Duplicates
    self_test: SelfTest | None
    split: str | None
    straddling: tuple[Straddling, ...]
    label_issues: tuple[LabelIssue, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def label_conflicts(self) -> tuple[Cluster, ...]:
        """Clusters of copies that carry different labels."""
        return tuple(cluster for cluster in self.duplicates.clusters if len(set(cluster.labels)) > 1)

    @property
    def problem_counts(self) -> list[tuple[str, str, int]]:
        """Weight, rule and number of photos, the weightiest and most frequent first."""
        counts = Counter(problem.rule for problem in self.collection.problems)
        rows = [(weight_of(rule), rule, count) for rule, count in counts.items()]
        return sorted(rows, key=lambda row: (WEIGHTS.index(row[0]), -row[2], row[1]))

    def problems_table(self) -> pd.DataFrame:
        """All problems: path, rule, weight, found, expected, fix."""
        rows = [(p.path, p.rule, weight_of(p.rule), p.found, p.expected, p.fix) for p in self.collection.problems]
        return pd.DataFrame(rows, columns=["path", "rule", "weight", "found", "expected", "fix"])

    def to_json(self) -> dict[str, Any]:
        """All findings as a JSON object."""
        paths = self.collection.manifest.table["path"]
        return {
            "format": FORMAT,
            "listed": self.collection.listed,
            "opened": len(paths),
            "classes": list(self.collection.manifest.classes),
            "problem_counts": {rule: count for _, rule, count in self.problem_counts},
            "problems": self.problems_table().to_dict(orient="records"),
            "overlays": [_overlay_json(overlay) for overlay in self.overlays],
            "source_columns": list(self.sources),
            "probes": [probe.to_json() for probe in self.probes],
            "duplicates": self.duplicates.to_json(),
            "self_test": self.self_test.to_json() if self.self_test else None,
            "split": self.split,
            "straddling": [cluster.to_json() for cluster in self.straddling],
            "label_conflicts": [cluster.name for cluster in self.label_conflicts],
            "label_issues": [issue.to_json() for issue in self.label_issues],
            "notes": list(self.notes),
        }


def run_audit(
    listing: Listing,
    settings: Settings | None = None,
    *,
    cache: Cache | None = None,
    embedding: Embedding | None = None,
    progress: Stages | None = None,
) -> Audit:
    """Open all photos once, then look at files, overlays, copies, splits, shortcuts and labels.

    Args:
        listing: What `hcoatnet.data.audit.reading.list_photos` gave.
        settings: What may be used beyond the photos.
        cache: Where results are kept from one run to the next.
        embedding: A network whose features propose pairs.
        progress: Gives each named stage a function of what is done and all.

    Raises:
        DataError: If no photo can be opened, or a file named in the settings does not fit the photos.
    """
    settings = settings or Settings()
    stage: Stages = progress or (lambda name: lambda done, total: None)
    rounds = read_subsets(settings.split) if settings.split else None
    collection = read_photos(listing, cache, stage("reading photos"))
    photos, thumbnails = collection.manifest, collection.features["thumbnail"]
    _require_columns(settings.source_columns, collection)
    known = set(photos.table["path"]) | set(listing.table["path"])
    if rounds is not None and settings.split and not any(known & set(subsets) for subsets in rounds):
        raise DataError(
            f"{settings.split}: none of its paths is among the photos that are audited. Audit the manifest that the "
            "split was made of."
        )
    issues, label_notes = label_issues(photos, settings.predictions) if settings.predictions else ((), ())
    verdicts = read_verdicts(settings.verdicts, known) if settings.verdicts else None
    sources = tuple(source_columns(photos, settings.source_columns))
    overlays, masks = find_overlays(photos, thumbnails, sources)
    duplicates, measured = _copies(collection, masks, verdicts, settings, cache, embedding, stage)
    probes: tuple[Probe, ...] = ()
    probe_notes: tuple[str, ...] = ("No probes: the photos do not come in two classes or more.",)
    if collection.labelled:
        probes, probe_notes = probe_shortcuts(
            photos, collection.facts, thumbnails, sources, settings.seed, stage("shortcut probes")
        )
    subsets = rounds if rounds is not None else subsets_of_folders(photos)
    return Audit(
        collection=collection,
        sources=sources,
        overlays=overlays,
        probes=probes,
        duplicates=duplicates,
        self_test=measured,
        split="split file" if rounds is not None else "folders" if subsets else None,
        straddling=straddling(duplicates.clusters, subsets),
        label_issues=issues,
        notes=(*collection.notes, *duplicates.notes, *probe_notes, *label_notes),
    )


def _copies(
    collection: Collection,
    masks: Mapping[str, Cells],
    verdicts: Verdicts | None,
    settings: Settings,
    cache: Cache | None,
    embedding: Embedding | None,
    stage: Stages,
) -> tuple[Duplicates, SelfTest | None]:
    """The copies, and how well such copies are found.

    NumPy multiplies in one thread meanwhile: the photos are spread over threads already, and threads of threads wait
    for one another.
    """
    photos, features = collection.manifest, collection.features
    with threadpool_limits(1, user_api="blas"):
        duplicates = find_duplicates(
            photos, features, masks=masks, verdicts=verdicts, cache=cache, embedding=embedding, progress=stage
        )
        if not settings.self_test_photos:
            return duplicates, None
        measured = self_test(
            photos,
            features,
            masks=masks,
            cache=cache,
            embedding=embedding,
            photos=settings.self_test_photos,
            seed=settings.seed,
            progress=stage("measuring itself"),
        )
    return duplicates, measured


def _require_columns(named: Sequence[str], collection: Collection) -> None:
    present = collection.manifest.extra_columns
    if missing := [name for name in named if name not in present]:
        there = ", ".join(present) or "none"
        raise DataError(f"There is no column {missing[0]!r} to take as a source. Further columns: {there}.")


def _overlay_json(overlay: Overlay) -> dict[str, Any]:
    by: Mapping[str, Any] = {
        column: {value: {"carriers": carriers, "photos": photos} for value, (carriers, photos) in values.items()}
        for column, values in overlay.by.items()
    }
    return {
        "found_in": overlay.found_in,
        "box": list(overlay.box),
        "carriers": int(overlay.carriers.sum()),
        "by": by,
        "p": dict(overlay.p),
        "possible_shortcut": [column for column in overlay.by if overlay.goes_with(column)],
    }
