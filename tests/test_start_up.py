"""Starting is light: no heavy library is imported before a command needs it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "timm", "accelerate", "pandas", "scipy", "sklearn", "matplotlib", "numpy", "PIL")


def loaded_after(code):
    check = f"import sys\n{code}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return eval(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "code",
    [
        "import hcoatnet",
        "from hcoatnet.cli import app, run; run(app, ['--help'])",
        "from hcoatnet.cli import app, run; run(app, ['train', '--help'])",
        "from hcoatnet.cli import app, run; run(app, ['study', 'run', '--help'])",
        "from hcoatnet.cli import app, run; run(app, ['--version'])",
        "from hcoatnet.cli import app, run; run(app, ['doctor', '--help'])",
    ],
)
def test_nothing_heavy_is_imported(code):
    assert loaded_after(code) == []


@pytest.mark.parametrize(
    "module",
    ["data.images", "data.manifest", "data.splits", "data.synthetic", "evaluation.metrics", "evaluation.predictions",
     "evaluation.ledger", "report.figures", "report.html", "report.writing", "report.audit", "report.datasheet",
     "study.collect", "study.status", "study.verdict", "commands.comparison_tables", "data.sources.roboflow",
     "deploy.bundle", "deploy.classifier", "deploy.prediction", "deploy.prediction_output",
     "deploy.server.running"],
)  # fmt: skip
def test_data_statistics_and_reports_do_without_torch(module):
    loaded = loaded_after(f"import hcoatnet.{module}")
    assert not set(loaded) & {"torch", "torchvision", "timm", "accelerate"}


def test_every_command_has_help():
    commands = [
        ["data"],
        ["data", "scan"],
        ["data", "split"],
        ["data", "synth"],
        ["data", "audit"],
        ["data", "describe"],
        ["data", "roboflow"],
        ["models"],
        ["train"],
        ["evaluate"],
        ["demo"],
        ["study", "run"],
        ["study", "status"],
        ["ablate"],
        ["compare"],
        ["report"],
        ["serve"],
        ["bundle"],
        ["predict"],
        ["explain"],
        ["export"],
        ["doctor"],
    ]
    for command in commands:
        done = subprocess.run([sys.executable, "-m", "hcoatnet", *command, "--help"], capture_output=True, text=True)
        assert done.returncode == 0
        assert len(done.stdout) > 200
