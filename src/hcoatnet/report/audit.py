"""The page and the files of ``hcoatnet data audit``."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ImageDraw

from hcoatnet.data.audit.audit import Audit
from hcoatnet.data.audit.clusters import Cluster
from hcoatnet.data.audit.integrity import RULES, weight_of
from hcoatnet.data.audit.overlays import Overlay
from hcoatnet.data.audit.self_test import SelfTestRow
from hcoatnet.data.audit.shortcuts import Probe, shown
from hcoatnet.data.images import PhotoError, open_photo
from hcoatnet.files import write_json, write_text
from hcoatnet.report.page import render

MOST_CLUSTERS = 30
MOST_PHOTOS_A_CLUSTER = 6
MOST_ROWS_A_RULE = 20
MOST_PICTURES_A_RULE = 6
MOST_OVERLAYS = 8
MOST_LABELS = 24
"""How much the page shows of each; the rest is counted, and stands in the tables beside it."""

_SIDE = 128


@dataclass(frozen=True)
class Picture:
    """A thumbnail: its address (None if the photo cannot be opened), what it shows, and what stands below it."""

    source: str | None
    text: str
    lines: tuple[str, ...]


def write_audit(audit: Audit, out: Path, title: str) -> Path:
    """Write ``audit.html``, ``audit.json``, ``problems.csv`` and ``duplicates.csv`` into an existing folder.

    Args:
        audit: What was found.
        out: The folder.
        title: What the page calls the photos.

    Returns:
        The page.
    """
    write_text(out / "problems.csv", audit.problems_table().to_csv(index=False, lineterminator="\n"))
    write_text(out / "duplicates.csv", audit.duplicates.to_csv())
    write_json(out / "audit.json", audit.to_json())
    write_text(out / "audit.html", render("data_audit.html.jinja", _context(audit, title)))
    return out / "audit.html"


def _context(audit: Audit, title: str) -> dict[str, Any]:
    shelf = _Shelf(audit)
    clusters = audit.duplicates.clusters
    divided = {found.cluster: found for found in audit.straddling}
    order = sorted(
        clusters, key=lambda c: (c.name not in divided, len(set(c.labels)) < 2, c.merged, -len(c.paths), c.name)
    )
    return {
        "title": title,
        "listed": audit.collection.listed,
        "opened": len(audit.collection.manifest),
        "groups": audit.collection.manifest.table["group"].nunique(),
        "notes": audit.notes,
        "summary": _summary(audit),
        "rules": [_rule(audit, shelf, weight, rule, count) for weight, rule, count in audit.problem_counts],
        "clusters": [_cluster(shelf, cluster, divided.get(cluster.name)) for cluster in order[:MOST_CLUSTERS]],
        "cluster_count": len(clusters),
        "straddling": audit.straddling,
        "split": audit.split,
        "overlays": [_overlay(audit, shelf, overlay) for overlay in audit.overlays[:MOST_OVERLAYS]],
        "overlay_count": len(audit.overlays),
        "probes": [(probe, shown(probe), _dots(probe)) for probe in audit.probes],
        "self_test": _self_test(audit),
        "labels": [
            shelf.picture(
                issue.path,
                (
                    f"labelled {issue.label} ({issue.p_label:.2f})",
                    f"predicted {issue.suggested} ({issue.p_suggested:.2f})",
                ),
            )
            for issue in audit.label_issues[:MOST_LABELS]
        ],
        "label_count": len(audit.label_issues),
        "label_conflicts": len(audit.label_conflicts),
    }


class _Shelf:
    """Thumbnails of photos, made once each."""

    def __init__(self, audit: Audit) -> None:
        self.manifest = audit.collection.manifest
        self.labels: Mapping[str, str] = dict(
            zip(self.manifest.table["path"], self.manifest.table["label"], strict=True)
        )
        self._made: dict[tuple[str, tuple[float, ...] | None], str | None] = {}

    def picture(self, path: str, lines: Iterable[str] = (), box: tuple[float, ...] | None = None) -> Picture:
        """A thumbnail with its path and further lines; ``box`` is outlined."""
        key = (path, box)
        if key not in self._made:
            self._made[key] = _thumbnail(self.manifest.folder / path, box)
        label = self.labels.get(path, "")
        text = f"Photo {path}" + (f", labelled {label}" if label else "")
        if self._made[key] is None:
            text = f"{path} cannot be opened"
        return Picture(self._made[key], text, (Path(path).name, *lines))


def _thumbnail(path: Path, box: tuple[float, ...] | None) -> str | None:
    try:
        photo = open_photo(path)
    except PhotoError:
        return None
    photo.thumbnail((_SIDE, _SIDE))
    if box is not None:
        left, top, right, bottom = box
        width, height = photo.size
        corners = [left * width, top * height, right * width - 1, bottom * height - 1]
        for grow, colour in ((1, "black"), (0, "yellow")):
            grown = [corners[0] - grow, corners[1] - grow, corners[2] + grow, corners[3] + grow]
            ImageDraw.Draw(photo).rectangle(grown, outline=colour)
    buffer = BytesIO()
    photo.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _summary(audit: Audit) -> list[tuple[str, str, str]]:
    """Figures at the top of the page: what, how many, and a line about it."""
    merged = [cluster for cluster in audit.duplicates.clusters if cluster.merged]
    asked = len(audit.duplicates.clusters) - len(merged)
    errors = len({p.path for p in audit.collection.problems if weight_of(p.rule) == "error"})
    private = len({p.path for p in audit.collection.problems if weight_of(p.rule) == "privacy"})
    beating = sum(probe.beats_chance for probe in audit.probes)
    across = f"{len(audit.straddling):,}" if audit.split else "–"
    return [
        ("Cannot be used", f"{errors:,}", "files or rows with errors"),
        ("Tell of people or places", f"{private:,}", "photos, by their metadata"),
        (
            "Clusters of copies",
            f"{len(merged):,}",
            f"of {sum(len(c.paths) for c in merged):,} photos; {asked:,} more to decide",
        ),
        ("Across subsets", across, f"clusters divided by the {audit.split}" if audit.split else "no split was given"),
        ("Overlays", f"{len(audit.overlays):,}", "regions that stand still from photo to photo"),
        ("Probes above chance", f"{beating} of {len(audit.probes)}", "ways to guess the class without the skin"),
    ]


def _rule(audit: Audit, shelf: _Shelf, weight: str, rule: str, count: int) -> dict[str, Any]:
    rows = [problem for problem in audit.collection.problems if problem.rule == rule]
    seen = list(dict.fromkeys(problem.path for problem in rows if problem.path in shelf.labels))
    pictures = [shelf.picture(path) for path in seen[:MOST_PICTURES_A_RULE]] if rule in RULES else []
    return {"weight": weight, "name": rule, "count": count, "rows": rows[:MOST_ROWS_A_RULE], "pictures": pictures}


def _cluster(shelf: _Shelf, cluster: Cluster, divided: Any) -> dict[str, Any]:
    subset_of = {path: name for name, paths in divided.subsets.items() for path in paths} if divided else {}
    paths = sorted(cluster.paths, key=lambda path: (subset_of.get(path, ""), path))
    if divided:  # of each subset one photo first, so that what straddles is seen
        firsts = [paths_of[0] for paths_of in divided.subsets.values()]
        paths = [*firsts, *(path for path in paths if path not in firsts)]
    pictures = []
    for path in paths[:MOST_PHOTOS_A_CLUSTER]:
        label = shelf.labels.get(path, "")
        pictures.append(shelf.picture(path, filter(None, (label, subset_of.get(path, "")))))
    return {
        "name": cluster.name,
        "photos": len(paths),
        "hidden": max(0, len(paths) - MOST_PHOTOS_A_CLUSTER),
        "labels": sorted(set(cluster.labels) - {""}),
        "subsets": sorted(divided.subsets) if divided else [],
        "stages": sorted({edge.stage for edge in cluster.edges}),
        "reason": cluster.reason,
        "pictures": pictures,
    }


def _overlay(audit: Audit, shelf: _Shelf, overlay: Overlay) -> dict[str, Any]:
    carriers = list(audit.collection.manifest.table["path"][overlay.carriers])
    step = max(1, len(carriers) // 4)
    tables = [
        (column, [(value, *counts) for value, counts in overlay.by[column].items()], overlay.goes_with(column))
        for column in overlay.by
        if column != "label" or audit.collection.labelled
    ]
    return {
        "found_in": overlay.found_in,
        "photos": len(carriers),
        "box": [round(100 * edge) for edge in overlay.box],
        "tables": tables,
        "pictures": [shelf.picture(path, (shelf.labels[path],), overlay.box) for path in carriers[::step][:4]],
    }


def _dots(probe: Probe) -> dict[str, float] | None:
    """Where chance, figure and interval stand on a line from 0 to 1, in percent."""
    if probe.balanced_accuracy is None or probe.low is None or probe.high is None:
        return None
    return {
        "chance": 100 * probe.chance,
        "value": 100 * probe.balanced_accuracy,
        "low": 100 * probe.low,
        "width": 100 * (probe.high - probe.low),
    }


def _self_test(audit: Audit) -> dict[str, Any] | None:
    test = audit.self_test
    if test is None:
        return None
    stages = list(dict.fromkeys(row.stage for row in test.rows))
    changes: dict[str, dict[str, SelfTestRow]] = {}
    for row in test.rows:
        changes.setdefault(row.change, {})[row.stage] = row
    return {"stages": stages, "changes": changes, "photos": test.photos, "searched": test.searched}
