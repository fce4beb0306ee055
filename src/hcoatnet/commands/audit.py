"""``hcoatnet data audit``, ``describe`` and ``roboflow``: what the data are worth, and where they come from."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from hcoatnet.terminal import out as terminal
from hcoatnet.terminal import progress_bar, progress_stages, say, table

if TYPE_CHECKING:
    from hcoatnet.data.audit.audit import Audit
    from hcoatnet.data.manifest import Manifest


def register(app: App) -> None:
    """Add the commands to ``hcoatnet data``."""
    for command in (audit, describe, roboflow):
        app.command(command)


def audit(
    source: Path,
    *,
    out: Path = Path("audit"),
    split: Path | None = None,
    verdicts: Path | None = None,
    study: Path | None = None,
    predictions: list[Path] | None = None,
    strip_metadata: Path | None = None,
    path_column: str = "path",
    label_column: str = "label",
    group_column: str | None = None,
    path_format: str = "{}",
    source_column: list[str] | None = None,
    embedding_model: str | None = None,
    embedding_weights: Path | None = None,
    self_test_photos: int = 200,
    seed: int = 0,
) -> None:
    """Look for what is wrong with photos before training on them. Nothing of the data is changed.

    Damaged and odd files, metadata that tell of people, copies and near-copies, copies on both sides of a split, logos
    and other overlays, shortcuts and doubtful labels. The exit code is 0 whatever is found.

    Args:
        source: A folder of photos, a CSV table of photos, or a manifest.
        out: Folder for audit.html, audit.json, problems.csv, duplicates.csv and the cache.
        split: Split file, to look for copies in two subsets. Folders train, valid and test are looked at anyway.
        verdicts: CSV file of your verdicts on pairs: path_a, path_b, verdict (same, or not the same).
        study: Study or run whose test predictions are compared with the labels.
        predictions: Predictions tables to compare with the labels.
        strip_metadata: New folder for copies of all photos without their metadata.
        path_column: Column of the photos' paths, if the source is a table.
        label_column: Column of the classes.
        group_column: Column of the unit that must stay whole, such as a patient.
        path_format: How a path is made of the path column's value, which stands for {}.
        source_column: Column that says where a photo comes from; repeat it for several.
        embedding_model: timm model whose features propose near-copies.
        embedding_weights: Its weights file.
        self_test_photos: Photos on which the audit measures how many copies it finds; 0 leaves that out.
        seed: Seed of the probes and of that measurement.
    """
    from hcoatnet.data.audit.audit import Settings, run_audit
    from hcoatnet.data.audit.cache import Cache
    from hcoatnet.data.audit.embedding import load_embedding
    from hcoatnet.data.audit.labels import prediction_files
    from hcoatnet.data.audit.reading import list_photos
    from hcoatnet.report.audit import write_audit

    tables = [*(prediction_files(study) if study else []), *(predictions or [])]
    settings = Settings(split, verdicts, tables, source_column or [], self_test_photos, seed)
    listing = list_photos(source, path_column, label_column, group_column, path_format)
    embedding = load_embedding(embedding_model, embedding_weights)
    out.mkdir(parents=True, exist_ok=True)
    with progress_stages() as stages:
        found = run_audit(listing, settings, cache=Cache(out / "cache"), embedding=embedding, progress=stages)
        write_audit(found, out, source.resolve().name)
    _print_audit(found)
    say(
        f"Page: {out / 'audit.html'}", f"Tables: {out / 'problems.csv'}, {out / 'duplicates.csv'}, {out / 'audit.json'}"
    )
    if strip_metadata is not None:
        _strip_metadata(found.collection.manifest, strip_metadata)


def describe(manifest: Path, *, out: Path = Path("datasheet")) -> None:
    """Describe the photos of a manifest: counts, sizes, groups, licences, hashes and tables of all columns.

    Args:
        manifest: Made by `hcoatnet data scan`.
        out: Folder for datasheet.html and datasheet.json.
    """
    from hcoatnet.data.manifest import read_manifest
    from hcoatnet.report.datasheet import write_datasheet

    photos = read_manifest(manifest)
    sheet = write_datasheet(photos, out, manifest.resolve().parent.name + "/" + manifest.name)
    rows = [
        [row["name"], f"{row['photos']:,}", f"{100 * row['share']:.1f} %", f"{row['groups']:,}"]
        for row in sheet["classes"]
    ]
    title = f"{sheet['photos']:,} photos, {sheet['groups']:,} groups"
    terminal.print(table(title, ("class", "photos", "share", "groups"), rows, right=(1, 2, 3)))
    say(f"Page: {out / 'datasheet.html'}", f"Content: {out / 'datasheet.json'}")


def roboflow(
    out: Path,
    *,
    workspace: str = "hi-l9ueo",
    project: str = "ich-s-7lnsj",
    version: int = 1,
    format: str = "folder",
) -> None:
    """Download photos from Roboflow; by default those of the description of H-CoAtNet.

    The key is read from the environment variable ROBOFLOW_API_KEY, and from nowhere else.

    Args:
        out: New folder.
        workspace: Workspace on Roboflow.
        project: Project in it.
        version: Version of the project.
        format: Format of the export; `folder` has one folder a class.
    """
    from hcoatnet.data.sources.roboflow import Export, Progresses, download

    with progress_stages() as stages:
        export = Export(workspace, project, version, format)
        notes = download(out, export, Progresses(stages("downloading"), stages("unpacking")))
    say(*notes, f"Photos: {out}", f"Next: hcoatnet data audit {out}")


def _strip_metadata(photos: "Manifest", folder: Path) -> None:
    from hcoatnet.data.audit.strip import strip_metadata

    with progress_bar("copying photos") as progress:
        count, problems = strip_metadata(photos, folder, progress)
    say(f"{count:,} copies without metadata: {folder}, listed in {folder / 'table.csv'}")
    if problems:
        rows = [[problem.path, problem.found, problem.fix] for problem in problems]
        terminal.print(table("Not copied", ("path", "found", "fix"), rows))


def _print_audit(found: "Audit") -> None:
    from hcoatnet.data.audit.shortcuts import shown

    collection = found.collection
    say(f"{len(collection.manifest):,} of {collection.listed:,} photos can be opened.", *found.notes)
    rows = [[weight, rule, f"{count:,}"] for weight, rule, count in found.problem_counts]
    terminal.print(table("Files", ("weight", "rule", "photos"), rows or [["", "nothing odd", ""]], right=(2,)))
    merged = [cluster for cluster in found.duplicates.clusters if cluster.merged]
    asked = len(found.duplicates.clusters) - len(merged)
    say(
        f"Copies: {len(merged):,} clusters of {sum(len(cluster.paths) for cluster in merged):,} photos; "
        f"{asked:,} more for you to decide; {len(found.label_conflicts):,} carry different labels."
    )
    if found.split is not None:
        say(f"Across the {found.split}: {len(found.straddling):,} clusters stand in more than one subset.")
    if found.self_test is not None:
        measured = found.self_test.table()
        shares = [name for name in measured.columns if name not in ("copies", "false_joins")]
        cells = [
            [str(change), *(f"{row[name]:.3f}" for name in shares), f"{row['copies']:.0f}", f"{row['false_joins']:.0f}"]
            for change, row in measured.iterrows()
        ]
        columns = ("", *shares, "copies", "joined with another group")
        terminal.print(table("Measured on your photos: share of copies found", columns, cells, right=range(1, 9)))
    say(f"Overlays: {len(found.overlays):,}.")
    for overlay in found.overlays:
        with_which = ", ".join(column for column in overlay.by if overlay.goes_with(column))
        box = ", ".join(f"{100 * edge:.0f} %" for edge in overlay.box)
        verdict = f"goes with {with_which}: a possible shortcut" if with_which else "goes with no class or source"
        say(
            f"  {int(overlay.carriers.sum()):,} photos ({overlay.found_in}; left, top, right, bottom {box}): {verdict}."
        )
    if found.probes:
        cells = [
            [probe.name, *shown(probe).values(), "warning" if probe.beats_chance else ""] for probe in found.probes
        ]
        title = f"Shortcut probes; chance is {found.probes[0].chance:.3f}"
        columns_shown = ("class from", "balanced accuracy", "95 % interval", "p", "")
        terminal.print(table(title, columns_shown, cells, right=(1, 2, 3)))
    if found.label_issues:
        say(f"Labels: {len(found.label_issues):,} are doubted by the predictions.")
