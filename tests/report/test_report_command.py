"""``hcoatnet report`` from the command line, and without torch."""

import subprocess
import sys

import pytest
from simulated_study import simulate_arm, simulate_photos, three_arms, write_run, write_study

from report_pages import draw_nothing


def test_a_study(hcoatnet, tmp_path, monkeypatch):
    draw_nothing(monkeypatch)
    photos = simulate_photos()
    study = write_study(tmp_path, [simulate_arm(name, photos, 1.5) for name in ("alpha", "beta_b")], photos)
    code, printed = hcoatnet("report", study, "--reference", "beta_b", "--by", "sex", "--out", tmp_path / "out")
    assert code == 0
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in printed
    assert "beta_b" in (tmp_path / "out" / "tables" / "differences.md").read_text().splitlines()[0].replace("\\", "")
    assert not (study / "report.html").exists()
    assert (tmp_path / "out" / "tables" / "subgroups_sex.csv").is_file()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [(["--reference", "alph"], "no row 'alph'"), (["--by", "age"], "'age'"), (["--by", "sex,age"], "'age'")],
)
def test_a_mistake_is_named_and_nothing_is_written(hcoatnet, tmp_path, tokens, message):
    photos = simulate_photos()
    study = write_study(tmp_path, [simulate_arm("alpha", photos, 1.5)], photos)
    code, printed = hcoatnet("report", study, *tokens)
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed
    assert not (study / "report.html").exists()
    assert not (study / "tables").exists()


def test_an_unfinished_study_is_named(hcoatnet, tmp_path):
    photos = simulate_photos()
    arm = simulate_arm("alpha", photos, 1.5)
    study = write_study(tmp_path, [arm], photos)
    (study / "runs" / arm.cells[1].run / "metrics.json").unlink()
    code, printed = hcoatnet("report", study)
    assert code == 2
    assert arm.cells[1].run in printed


def test_no_torch(tmp_path):
    arm = three_arms()[0]
    run = write_run(tmp_path, arm, arm.cells[0], simulate_photos())
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from hcoatnet.report.writing import write_report\n"
        f"write_report(Path({str(run)!r}))\n"
        "print([name for name in ('torch', 'timm', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert (run / "report.html").stat().st_size < 2_000_000
