"""The command line: parse, call one function, print where the result lies.

Nothing heavy is imported before a command runs.
"""

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from cyclopts import App, Group, Parameter

from hcoatnet import __version__
from hcoatnet.config import GROUPS, Device, TrainConfig, resolve_config, settings_fields
from hcoatnet.errors import ConfigError, HCoAtNetError
from hcoatnet.terminal import out, print_error, print_frame, print_summary, progress_bar, report_error, say, table

USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143

app = App(
    name="hcoatnet",
    help="Train H-CoAtNet and honest baselines on small sets of skin photographs. Research software, not a diagnostic "
    "device.",
    version=__version__,
    result_action="return_value",
)
data_app = App(name="data", help="Photos in: read, check and split them.")
app.command(data_app)

ConfigFile = Annotated[Path | None, Parameter(help="YAML file of settings; flags win over it.")]


def main() -> None:
    """Run the command line and exit: 0 for success, 2 for a mistake of the user, 130 and 143 when stopped."""
    run_and_exit(app)


def run_and_exit(chosen: App) -> None:
    """Run the command line of this process.

    OpenMP's threads wait by spinning unless told otherwise before torch is loaded; beside any other busy process that
    made training several times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run(chosen, sys.argv[1:]))


def run(chosen: App, tokens: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        chosen(list(tokens))
    except HCoAtNetError as error:
        report_error(error)
        return USER_ERROR
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print_error(
            f"{error.strerror or error}{where}. Whole files are only ever replaced by whole files: what was there is "
            "still there. Mend the cause and run the command again (training: add --resume auto)."
        )
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException as stop:
        if type(stop).__name__ == "Terminated":
            return TERMINATED
        raise
    return 0


def _help(one: Field[Any], default: Any) -> str:
    text = str(one.metadata["help"])
    if one.metadata["example"]:
        text += f" For example {one.metadata['example']}."
    if isinstance(default, bool):
        return f"{text} [default: {'yes' if default else 'no'}]"
    return f"{text} [default: {default}]" if isinstance(default, str | int | float) else text


def with_settings(command: Callable[..., None], fixed: Mapping[str, str]) -> Callable[..., None]:
    """Give ``command(config, **flags)`` one flag for every setting.

    Only flags that were given reach it, so that files and protocols can lie under them; the help shows what holds
    without any.

    Args:
        command: The function behind the command.
        fixed: Settings that differ from the usual defaults; ``model`` among them gets no flag.
    """
    defaults = resolve_config(fixed)
    groups = {name: Group.create_ordered(name) for name in GROUPS}
    parameters = [inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)]
    for one, kind in settings_fields():
        if one.name == "model" and "model" in fixed:
            continue
        flag = Parameter(
            help=_help(one, getattr(defaults, one.name)),
            group=groups[one.metadata["group"]],
            show_default=False,
            negative_iterable=(),
            consume_multiple=False,
        )
        annotation = list[str] | None if get_origin(kind) is dict else kind | None
        parameters.append(
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, flag]
            )
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def settings_from(flags: dict[str, Any], config: Path | None) -> TrainConfig:
    """The settings of a command line: flags over ``--config``, or over the run that ``--resume DIR`` names."""
    resume = flags.get("resume")
    if resume in (None, "never", "auto"):
        return resolve_config(flags, config)
    from hcoatnet.training.run_directory import RunDirectory

    if config is not None:
        raise ConfigError(f"--resume {resume} takes its settings from that run: leave --config out.")
    stored = RunDirectory(Path(resume))
    stored.settings()
    return resolve_config(flags, stored.config_file)


def train(config: Path | None = None, **flags: Any) -> None:
    """Train one model, evaluate it once on the test photos, and leave a run directory with a report.

    Defaults < --protocol < --config < flags. Without --split a split of 70/15/15 is made that keeps every group whole.
    """
    _train(settings_from(flags, config))


app.command(with_settings(train, {}))


@data_app.command
def scan(
    source: Path,
    *,
    out: Path,
    path_column: str = "path",
    label_column: str = "label",
    group_column: str | None = None,
) -> None:
    """Read a folder or a table of photos and write a manifest.

    Args:
        source: Folder with a folder of photos a class (also train/valid/test/CLASS), or a CSV file.
        out: Manifest to write.
        path_column: Column of the photos' paths, relative to the CSV file.
        label_column: Column of the classes.
        group_column: Column of the unit that must stay whole, such as a patient.
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
                progress=progress,
            )
        else:
            result = scan_folder(source, progress=progress)
    manifest = write_manifest(result.manifest, out)
    say(*result.notes)
    counts = manifest.table.groupby("label").agg(photos=("path", "size"), groups=("group", "nunique"))
    print_frame(f"{len(manifest)} photos, {manifest.table['group'].nunique()} groups", counts)
    say(f"Manifest: {out}")


@data_app.command
def split(
    manifest: Path,
    *,
    out: Path,
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
        folds: Make a cross-validation of this many folds in place of one hold-out split.
        repeats: Repeats of the cross-validation.
        val_share: Share of the photos for validation.
        test_share: Share of the photos for the test.
        seed: Seed of the split.
    """
    from hcoatnet.data.manifest import read_manifest
    from hcoatnet.data.splits import cross_validation, hold_out, prove
    from hcoatnet.files import write_text

    photos = read_manifest(manifest)
    if folds is None:
        subsets = hold_out(photos, val_share=val_share, test_share=test_share, seed=seed)
        proof = prove(subsets, photos)
        write_text(out, subsets.to_csv())
    else:
        cells = cross_validation(photos, folds=folds, repeats=repeats, seed=seed)
        proof = prove(cells, photos)
        write_text(out, cells.to_csv())
    print_frame("Photos and groups of each class", proof.table())
    say(*proof.lines(), f"Split: {out}")


@data_app.command
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


@app.command
def models(*, image_size: int = 224, classes: int = 5) -> None:
    """List the models with their parameters and multiply-adds.

    Args:
        image_size: Side of the input, in pixels.
        classes: Number of classes.
    """
    from hcoatnet.models import registry

    columns = ("model", "short name", "parameters", "multiply-adds (G)")
    rows = []
    for name in registry.list_models():
        summary = registry.describe(name, image_size, classes)
        rows.append([name, summary.alias or "", f"{summary.parameters:,}", f"{summary.multiply_adds / 1e9:.4f}"])
    out.print(table(f"{classes} classes, {image_size}² pixels", columns, rows, right=(2, 3)))
    say("Any other classifier of timm is taken by its name, too.")


@app.command
def evaluate(
    run: Path,
    *,
    data: Path | None = None,
    subset: Literal["val", "test"] = "test",
    name: str | None = None,
    device: Device = "auto",
) -> None:
    """Evaluate a finished run again from its directory, on its own photos or on new labelled ones.

    Args:
        run: Run directory.
        data: New photos: a folder or a manifest. Without it, the run's own photos.
        subset: Which of the run's own photos; `test` is recorded in the test ledger.
        name: Name of the folder under RUN/evaluations.
        device: Where to compute.
    """
    from hcoatnet.training.scoring import evaluate_run

    done = evaluate_run(run, data=data, subset=subset, name=name, device=device, console=out)
    print_summary({done.metrics["data"]: done.metrics["summary"]})
    say(f"Report: {done.folder / 'report.html'}")


@app.command
def demo(*, folder: Path = Path("demo"), open: bool = False) -> None:
    """Draw synthetic photos, train a small H-CoAtNet and a baseline on them, and show what leakage does.

    Args:
        folder: Where everything is put; an earlier demonstration in it is replaced.
        open: Open the report in a browser.
    """
    from hcoatnet.demo import run_demo

    page = run_demo(folder, out)
    say(f"Report: {page}")
    if open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def original_command(model: str) -> None:
    """Run one of the original description's training commands: ``train`` under ``paper`` with the model fixed.

    Args:
        model: Name of the model.
    """
    fixed = {"model": model, "protocol": "paper"}

    def command(config: Path | None = None, **flags: Any) -> None:
        settings = {**fixed, **flags}
        if config is None and "data" not in settings and flags.get("resume") in (None, "never", "auto"):
            settings["data"] = _ichthyosis_folder()
        _train(settings_from(settings, config))

    command.__doc__ = f"""Train {model} as the original description does (protocol paper), with every flag of
    `hcoatnet train`."""
    single = App(default_command=with_settings(command, fixed), result_action="return_value")
    run_and_exit(single)


def _ichthyosis_folder() -> Path:
    folder = Path("data/ichthyosis")
    if folder.is_dir():
        return folder
    raise ConfigError(
        f"There are no photos in {folder}. Download the published set there with a Roboflow key (workspace hi-l9ueo, "
        "project ich-s-7lnsj, version 1, format `folder`), give your own with --data FOLDER (a folder of photos a "
        "class), or try it with --data synthetic."
    )


def _train(config: TrainConfig) -> None:
    from hcoatnet.training.run import train as train_run

    done = train_run(config, out)
    results = done.results()
    print_summary(results["subsets"])
    say(f"Report: {done.path / 'report.html'}")
