"""``hcoatnet data``: photos in, checked and split."""

from pathlib import Path

from cyclopts import App

from hcoatnet.terminal import print_frame, progress_bar, say

app = App(name="data", help="Photos in: read, check and split them.")


@app.command
def scan(
    source: Path,
    *,
    out: Path,
    path_column: str = "path",
    label_column: str = "label",
    group_column: str | None = None,
    path_format: str = "{}",
) -> None:
    """Read a folder or a table of photos and write a manifest.

    Args:
        source: Folder with a folder of photos a class (also train/valid/test/CLASS), or a CSV file.
        out: Manifest to write.
        path_column: Column of the photos' paths, relative to the CSV file.
        label_column: Column of the classes.
        group_column: Column of the unit that must stay whole, such as a patient.
        path_format: How a path is made of the path column's value, which stands for {}: images/{}.jpg.
    """
    from hcoatnet.data.manifest import write_manifest
    from hcoatnet.data.sources.folder import scan_folder
    from hcoatnet.data.sources.table import scan_table

    with progress_bar("reading photos") as progress:
        if source.is_file():
            result = scan_table(
                source,
                path_column=path_column,
                label_column=label_column,
                group_column=group_column,
                path_format=path_format,
                progress=progress,
            )
        else:
            result = scan_folder(source, progress=progress)
    manifest = write_manifest(result.manifest, out)
    say(*result.notes)
    counts = manifest.table.groupby("label").agg(photos=("path", "size"), groups=("group", "nunique"))
    print_frame(f"{len(manifest)} photos, {manifest.table['group'].nunique()} groups", counts)
    say(f"Manifest: {out}")


@app.command
def split(
    manifest: Path,
    *,
    out: Path,
    duplicates: Path | None = None,
    folds: int | None = None,
    repeats: int = 1,
    val_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 42,
) -> None:
    """Split the photos of a manifest so that no group stands in two subsets, and prove it.

    Args:
        manifest: Made by `hcoatnet data scan`.
        out: Split file to write.
        duplicates: duplicates.csv of `hcoatnet data audit`: confirmed copies are kept in one subset.
        folds: Make a cross-validation of this many folds in place of one hold-out split.
        repeats: Repeats of the cross-validation.
        val_share: Share of the photos for validation.
        test_share: Share of the photos for the test.
        seed: Seed of the split.
    """
    from hcoatnet.data.audit.joining import join_duplicates
    from hcoatnet.data.manifest import Manifest, read_manifest
    from hcoatnet.data.splits import Folds, Split, cross_validation, hold_out, prove
    from hcoatnet.files import write_text

    def deal(photos: Manifest) -> Split | Folds:
        if folds is None:
            return hold_out(photos, val_share=val_share, test_share=test_share, seed=seed)
        return cross_validation(photos, folds=folds, repeats=repeats, seed=seed)

    photos = read_manifest(manifest)
    joined = join_duplicates(photos, duplicates) if duplicates else None
    made = deal(joined.manifest if joined else photos)
    proof = prove(made, photos)
    write_text(out, made.to_csv())
    if joined:
        say(*joined.lines(without=deal(photos)))
    print_frame("Photos and groups of each class", proof.table())
    say(*proof.lines(), f"Split: {out}")


@app.command
def synth(folder: Path, *, patients: int = 120, photos_per_patient: int = 3, size: int = 128, seed: int = 0) -> None:
    """Draw a set of synthetic skin-like textures in five classes, to try everything without real photos.

    Args:
        folder: New folder for the photos and their manifest.
        patients: Synthetic patients.
        photos_per_patient: Photos of each, on average.
        size: Side of a photo, in pixels.
        seed: Seed of the drawing.
    """
    from hcoatnet.data.synthetic import draw_synthetic

    with progress_bar("drawing photos") as progress:
        manifest = draw_synthetic(
            folder, patients=patients, photos_per_patient=photos_per_patient, size=size, seed=seed, progress=progress
        )
    say(f"Drew {len(manifest)} synthetic photos of {patients} synthetic patients. They say nothing about real ones.")
    say(f"Manifest: {folder / 'manifest.csv'}")
