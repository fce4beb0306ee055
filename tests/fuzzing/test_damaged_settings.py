"""Settings and studies in YAML whose keys and values are not right, or that is no YAML any more."""

import pytest
import yaml
from damage import damaged, damaged_tree, explore, outcome, sizes

from hcoatnet.config import TrainConfig, read_settings, resolve_config, stored_settings, write_settings
from hcoatnet.errors import ConfigError
from hcoatnet.study.definition import StudyConfig, read_study

WORDS = [
    b"&a ", b"*a", b"<<: *a", b"!!int ", b"!!timestamp ", b"!!binary ", b"!!set ", b"!!python/name:os.mkdir ", b"? ", b": ",
    b"- ", b"[", b"{", b"|", b">", b"'", b'"', b"%YAML 1.1", b"---", b"...", b"\n", b"\t", b"\0", b"\xff", b"2001-99-99", b"0x",
    b"1:60:60", b".inf", b".nan", b"~", b"9" * 40, b"0b2", b"1e400", b"#",
]  # fmt: skip
STUDY = {
    "models": ["cnn", {"name": "mine", "model": "h_coatnet", "lr": 1e-4, "model_options": {"importance": "norm"}}],
    "inits": ["scratch", "pretrained"], "seeds": [1, 2], "repeats": [0], "folds": [0, 1, 2], "data": "manifest.csv",
    "split": "folds.csv", "epochs": 3, "dropout": 0.2, "compile": "auto",
}  # fmt: skip


def a_run(tmp_path):
    path = tmp_path / "config.yaml"
    write_settings(TrainConfig(data=tmp_path / "manifest.csv", model_options={"importance": "norm"}), path)
    return path.read_text(encoding="utf-8")


READERS = {
    "settings": (a_run, read_settings, dict),
    "run": (a_run, stored_settings, dict),
    "study": (lambda _: yaml.safe_dump(STUDY), read_study, StudyConfig),
}


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    """A whole text, and the outcome of reading another in its place."""
    make, read, kind = READERS[request.param]
    text = make(tmp_path)
    path = tmp_path / f"{request.param}.yaml"

    def outcome_of(content):
        path.write_bytes(content)
        found = outcome(lambda: read(path), path.name)
        assert isinstance(found, (kind, ConfigError))
        if isinstance(
            found, dict
        ):  # a contradiction may lie between the file and a flag, so its message names settings
            assert isinstance(outcome(lambda: resolve_config(found), "setting"), (TrainConfig, ConfigError))
        return found

    assert isinstance(outcome_of(text.encode()), kind)
    return text, outcome_of


@sizes(few=25, many=3000)
def test_wrong_keys_and_values(reader, examples):
    text, outcome_of = reader
    explore(
        examples,
        lambda tree: outcome_of(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")),
        damaged_tree(yaml.safe_load(text)),
    )


@sizes(few=25, many=3000)
def test_wrong_bytes(reader, examples):
    text, outcome_of = reader
    explore(examples, outcome_of, damaged([text.encode(), b"a: &a [1]\nb: *a\n"], WORDS))
