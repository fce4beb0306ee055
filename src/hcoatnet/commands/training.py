"""Models, training and evaluation: ``train``, ``evaluate``, ``models``, ``demo``."""

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from cyclopts import App, Group, Parameter

from hcoatnet.config import GROUPS, Device, TrainConfig, Views, resolve_config, settings_fields, stored_settings
from hcoatnet.errors import ConfigError
from hcoatnet.terminal import out, print_summary, say, table

ConfigFile = Annotated[Path | None, Parameter(help="YAML file of settings; flags win over it.")]


def _help(one: Field[Any], default: Any) -> str:
    text = str(one.metadata["help"])
    if one.metadata["example"]:
        text += f" For example {one.metadata['example']}."
    if isinstance(default, bool):
        return f"{text} [default: {'yes' if default else 'no'}]"
    return f"{text} [default: {default}]" if isinstance(default, str | int | float) else text


def with_settings(
    command: Callable[..., None], fixed: Mapping[str, str], leave_out: Collection[str] = ()
) -> Callable[..., None]:
    """Give ``command(…, **flags)`` one flag for every setting, beside the parameters that it names itself.

    Only flags that were given reach it, so that files and protocols can lie under them; the help shows what holds
    without any.

    Args:
        command: The function behind the command.
        fixed: Settings that differ from the usual defaults; ``model`` among them gets no flag.
        leave_out: Further settings that get no flag.
    """
    defaults = resolve_config(fixed)
    groups = {name: Group.create_ordered(name) for name in GROUPS}
    named = inspect.signature(command).parameters.values()
    parameters = [one for one in named if one.kind is not inspect.Parameter.VAR_KEYWORD]
    without = {*leave_out, *(one.name for one in parameters), *(["model"] if "model" in fixed else [])}
    for one, kind in settings_fields():
        if one.name in without:
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
    return resolve_config({**stored_settings(stored.config_file), **flags})


def train(*, config: ConfigFile = None, **flags: Any) -> None:
    """Train one model, evaluate it once on the test photos, and leave a run directory with a report.

    Defaults < --protocol < --config < flags. Without --split a split of 70/15/15 is made that keeps every group whole.
    """
    run_training(settings_from(flags, config))


def run_training(config: TrainConfig) -> None:
    """Train and print where the report lies; of several processes the leading one prints."""
    from hcoatnet.training.run import train as train_run

    done = train_run(config, out)
    if os.environ.get("RANK", "0") != "0":
        return
    results = done.results()
    print_summary(results["subsets"])
    say(f"Report: {done.path / 'report.html'}")


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


def evaluate(
    run: Path,
    *,
    data: Path | None = None,
    subset: Literal["val", "test"] = "test",
    name: str | None = None,
    views: Views | None = None,
    device: Device = "auto",
) -> None:
    """Evaluate a finished run again from its directory, on its own photos or on new labelled ones.

    Args:
        run: Run directory.
        data: New photos: a folder or a manifest. Without it, the run's own photos.
        subset: Which of the run's own photos; `test` is recorded in the test ledger.
        name: Name of the folder under RUN/evaluations.
        views: Other views of the photos than the run was trained with, for this evaluation.
        device: Where to compute.
    """
    from hcoatnet.training.scoring import evaluate_run

    done = evaluate_run(run, data=data, subset=subset, name=name, views=views, device=device, console=out)
    print_summary({done.metrics["data"]: done.metrics["summary"]})
    say(f"Report: {done.folder / 'report.html'}")


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


def register(app: App) -> None:
    """Add these commands to the command line."""
    app.command(with_settings(train, {}))
    for command in (models, evaluate, demo):
        app.command(command)
