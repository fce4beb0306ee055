"""The recipe for containers, as far as it can be tested without an engine."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from hcoatnet.cli import app

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deployment/compose.yaml").read_text())
CADDYFILE = ROOT / "deployment/Caddyfile"
SERVERS = [name for name in COMPOSE["services"] if name != "proxy"]


def entrypoint():
    return json.loads(re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.M)[1])


def test_the_image_is_built_from_files_that_are_there():
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert {"src", "configs", "pyproject.toml", "requirements-serve.txt"} <= set(let_in)
    for name in let_in:
        assert (ROOT / name).exists(), name
    assert "torch" not in (ROOT / "requirements-serve.txt").read_text()


@pytest.mark.parametrize("server", SERVERS)
def test_the_servers_are_started_with_flags_that_exist(server):
    flags = [re.sub(r"\$\{SITE.*\}", "derm.example.org", flag) for flag in COMPOSE["services"][server]["command"]]
    _, given, _ = app.parse_args([*entrypoint()[1:], *flags], exit_on_error=False, print_error=False)
    assert given.arguments["allowed_host"] == ["derm.example.org", *SERVERS]
    assert f"/run/secrets/{next(iter(COMPOSE['secrets']))}" == str(given.arguments["token_file"])
    assert given.arguments["host"] == "0.0.0.0"
    assert COMPOSE["services"][server]["read_only"]
    interval = re.search(r"health_interval (\d+)s", CADDYFILE.read_text())[1]
    assert given.arguments["drain_seconds"] > 2 * int(interval)


def test_the_proxy_knows_every_server():
    port = entrypoint()[entrypoint().index("--port") + 1]
    assert [f"{server}:{port}" for server in SERVERS] == re.findall(r"server-\d:\d+", CADDYFILE.read_text())


@pytest.mark.skipif(shutil.which("caddy") is None, reason="no Caddy on this machine")
def test_the_proxy_understands_its_settings():
    command = ["caddy", "adapt", "--config", str(CADDYFILE), "--adapter", "caddyfile", "--validate"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "SITE": "localhost"})
    assert done.returncode == 0, done.stderr
