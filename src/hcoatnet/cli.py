"""The command line: parse, call one function, print where the result lies.

Nothing heavy is imported before a command runs. The commands themselves are in ``hcoatnet.commands``.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import App

from hcoatnet import __version__
from hcoatnet.commands import (
    audit,
    bundling,
    data,
    doctor,
    evidence,
    explaining,
    exporting,
    prediction,
    reporting,
    serving,
    training,
)
from hcoatnet.errors import ConfigError, HCoAtNetError
from hcoatnet.interruption import Terminated
from hcoatnet.terminal import accept_every_sign, print_error, report_error
from hcoatnet.threads import spin_briefly

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
training.register(app)
audit.register(data.app)
reporting.register(app)
app.command(data.app)
evidence.register(app)
for last_mile in (bundling, prediction, explaining, exporting, serving):
    last_mile.register(app)
doctor.register(app)


def main() -> None:
    """Run the command line and exit: 0 for success, 2 for a mistake of the user, 130 and 143 when stopped."""
    run_and_exit(app)


def run_and_exit(chosen: App) -> None:
    """Run the command line of this process."""
    spin_briefly(os.environ)
    sys.exit(run(chosen, sys.argv[1:]))


def run(chosen: App, tokens: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    accept_every_sign()
    # Pillow's remarks on damaged metadata name no photo; whoever wants to know asks `data audit`.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
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
    except Terminated:
        return TERMINATED
    return 0


def original_command(model: str) -> None:
    """Run one of the original description's training commands: ``train`` under ``paper`` with the model fixed.

    Args:
        model: Name of the model.
    """
    fixed = {"model": model, "protocol": "paper"}

    def command(*, config: training.ConfigFile = None, **flags: Any) -> None:
        settings = {**fixed, **flags}
        if config is None and "data" not in settings and flags.get("resume") in (None, "never", "auto"):
            settings["data"] = _ichthyosis_folder()
        training.run_training(training.settings_from(settings, config))

    command.__doc__ = f"""Train {model} as the original description does (protocol paper), with every flag of
    `hcoatnet train`."""
    single = App(default_command=training.with_settings(command, fixed), result_action="return_value")
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
