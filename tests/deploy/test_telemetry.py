"""ONNX Runtime tells nobody what it runs."""

import os
import subprocess
import sys

import pytest

RUN = "import sys, hcoatnet; hcoatnet.load_classifier(sys.argv[1], backend='onnx')"


@pytest.mark.parametrize("start", [RUN, f"import hcoatnet.cli; {RUN}"], ids=["python", "command"])
def test_nothing_is_left_for_a_report(run_bundle, tmp_path, start):
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    done = subprocess.run([sys.executable, "-c", start, str(run_bundle)], env={**kept, "HOME": str(tmp_path)})
    assert done.returncode == 0
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
