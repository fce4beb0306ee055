"""Studies and comparisons: ``study run``, ``study status``, ``ablate``, ``compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from hcoatnet.commands.training import ConfigFile, with_settings
from hcoatnet.errors import ConfigError
from hcoatnet.study.definition import PLACED, split_list
from hcoatnet.terminal import out as console
from hcoatnet.terminal import say

if TYPE_CHECKING:
    from hcoatnet.study.run import StudyResult

CELLS_FAILED = 1
"""Exit code of a study in which cells failed; 2 is a mistake of the user, found before any cell started."""

Items = Annotated[list[str] | None, Parameter(negative_iterable=(), consume_multiple=True, show_default=False)]

study_app = App(name="study", help="Train many models under one definition, and see how far that is.")


def run(
    *,
    out: Path,
    config: ConfigFile = None,
    models: Items = None,
    inits: Items = None,
    seeds: Items = None,
    repeats: Items = None,
    folds: Items = None,
    jobs: int = 1,
    shard: str | None = None,
    cluster: str | None = None,
    **settings: Any,
) -> None:
    """Train models × inits × seeds × folds, each cell in a process of its own; run it again to continue.

    Lists are separated by commas or blanks. Finished cells are skipped, others resumed. Without --config
    a study that was begun in --out is continued, or grown where --models, --inits, --seeds, --repeats or --folds say
    so. Exit code 1: cells failed, and are listed; 2: a mistake, found before any cell started.

    Args:
        out: The study's directory.
        config: Study file; flags win over it.
        models: Models, or rows of the study file.
        inits: Initial weights: scratch, pretrained, pretrained:FILE. [default: scratch]
        seeds: Seeds. [default: 42]
        repeats: Repeats of the split file. [default: all]
        folds: Folds of the split file. [default: all]
        jobs: Cells at a time; they share this machine's cores.
        shard: i/n trains only the i-th of n parts of the cells.
        cluster: Address of a Dask scheduler whose workers share this file system.
        **settings: Settings of `hcoatnet train` for all cells.
    """
    from hcoatnet.study.definition import overlay, read_study
    from hcoatnet.study.plan import StudyDirectory
    from hcoatnet.study.run import run_study

    directory = StudyDirectory(out)
    base = read_study(config) if config else directory.definition() if directory.exists else None
    lists = {"models": models, "inits": inits, "seeds": seeds, "repeats": repeats, "folds": folds}
    study = overlay(base, settings=settings, **lists)
    continuing = directory.exists and config is None and not any(lists.values())
    done = run_study(study, out, console=console, jobs=jobs, shard=shard, cluster=cluster, planned_only=continuing)
    _conclude(done)


def ablate(
    *,
    out: Path,
    model: str = "h_coatnet_atto",
    rows: Items = None,
    inits: Items = None,
    seeds: Items = None,
    repeats: Items = None,
    folds: Items = None,
    jobs: int = 1,
    shard: str | None = None,
    cluster: str | None = None,
    **settings: Any,
) -> None:
    """Take H-CoAtNet apart in a study: the published rows A0 to A7, every token importance, a repeated first stage.

    `hcoatnet study run --out DIR` continues it; `hcoatnet compare DIR --reference full-gradient` compares the rows.

    Args:
        out: The study's directory.
        model: An H-CoAtNet of any size.
        rows: Only these rows, such as A0,A5,full-gradient. [default: all]
        inits: Initial weights: scratch, pretrained, pretrained:FILE. [default: scratch]
        seeds: Seeds. [default: 42]
        repeats: Repeats of the split file. [default: all]
        folds: Folds of the split file. [default: all]
        jobs: Cells at a time; they share this machine's cores.
        shard: i/n trains only the i-th of n parts of the cells.
        cluster: Address of a Dask scheduler whose workers share this file system.
        **settings: Settings of `hcoatnet train` for all cells.
    """
    from hcoatnet.config import resolve_config
    from hcoatnet.study.ablation import ablation_variants, chosen_rows
    from hcoatnet.study.definition import StudyConfig, overlay
    from hcoatnet.study.run import run_study

    shared = settings.pop("model_options", None)
    shape = {name: value for name, value in settings.items() if name in ("protocol", "image_size")}
    common = resolve_config({**shape, "model_options": shared or {}})
    variants, notes = ablation_variants(model, common.model_options, common.image_size)
    base = StudyConfig(chosen_rows(variants, split_list(rows or [])))
    study = overlay(base, inits=inits, seeds=seeds, repeats=repeats, folds=folds, settings=settings)
    for note in notes:
        say(note)
    _conclude(run_study(study, out, console=console, jobs=jobs, shard=shard, cluster=cluster))


def compare(
    studies: list[Path],
    /,
    *,
    reference: str | None = None,
    by: Items = None,
    init: Literal["scratch", "pretrained"] | None = None,
    subset: Literal["test", "val"] = "test",
    out: Path | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> None:
    """Say which model is better, and how sure that is, from the predictions of finished studies or runs.

    Args:
        studies: Study directories and run directories; rows of the same name are joined.
        reference: Row that the others are compared with. [default: the first H-CoAtNet, else the first row]
        by: Metadata columns to look at subgroups by.
        init: Only rows that began from these weights.
        subset: val compares on validation photos, to choose settings without opening a test set.
        out: Folder for comparison.json or comparison_val.json. [default: results/ in the study]
        draws: Bootstrap draws.
        seed: Seed of the draws.
    """
    from hcoatnet.commands import comparison_tables as tables
    from hcoatnet.study.ablation import CONFIDENT
    from hcoatnet.study.verdict import judge, write_verdict

    if out is None and len(studies) > 1:
        raise ConfigError("Several directories are compared: say with --out where the result is to go.")
    columns = split_list(by or [])
    verdict = judge(studies, reference=reference, by=columns, init=init, subset=subset, draws=draws, seed=seed)
    comparison = verdict.comparison
    console.print(tables.naming_table(comparison))
    console.print(tables.probabilities_table(comparison, verdict.confident_errors, CONFIDENT))
    console.print(tables.counts_table(comparison))
    if comparison.differences:
        console.print(tables.differences_table(comparison))
        console.print(tables.tests_table(comparison))
    for part in (part for parts in verdict.subgroups.values() for part in parts):
        console.print(tables.subgroups_table(part))
        say(tables.gap_line(part))
    say(*tables.notes(comparison))
    say(f"Comparison: {write_verdict(verdict, out or studies[0] / 'results')}")


def _conclude(done: "StudyResult") -> None:
    for cell, message in done.failed.items():
        say(f"Failed: {cell}: {message}")
    say(f"Study: {done.directory.path}")
    if done.failed:
        raise SystemExit(CELLS_FAILED)


@study_app.command
def status(study: Path) -> None:
    """Say how far a study is: every cell with its state, epoch, validation macro F1 and time.

    Args:
        study: The study's directory.
    """
    from hcoatnet.study.plan import StudyDirectory
    from hcoatnet.study.status import counts_line, status_table, study_status

    cells = study_status(StudyDirectory(study))
    console.print(status_table("", cells))
    say(counts_line([one.state for one in cells]))


def register(app: App) -> None:
    """Add these commands to the command line."""
    study_app.command(with_settings(run, {}, leave_out=PLACED))
    app.command(study_app)
    app.command(with_settings(ablate, {}, leave_out=PLACED))
    app.command(compare)
