"""What a user can get wrong: one clear message, exit code 2, no traceback, nothing left behind."""

import json
import resource
import shutil
import struct
import subprocess
import sys
import zlib

import pytest

from conftest import CLASSES, COLOURS, draw_photo, flags

SMALL = {"model": "cnn", "image_size": 24, "epochs": 2, "batch_size": 8, "device": "cpu", "workers": 0}


@pytest.fixture
def folder(tmp_path):
    """A folder a class, six photos each."""
    for number, name in enumerate(CLASSES):
        for photo in range(6):
            draw_photo(tmp_path / "photos" / name / f"{photo}.png", COLOURS[name], 100 * number + photo)
    return tmp_path / "photos"


def bomb(path):
    """A PNG of a few hundred bytes that claims 60,000 × 60,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 500)) + chunk(b"IEND", b"")
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


def make_empty(path):
    path.write_bytes(b"")


def make_text(path):
    path.write_text("this is no photo")


def check(result, *words):
    code, printed = result
    assert code == 2, printed
    assert "Traceback" not in printed
    flat = " ".join(printed.split())
    for word in words:
        assert word in flat, printed


def both_commands(hcoatnet, data, out):
    """The outcome of `data scan` and of `train` on the same photos; neither may leave a file."""
    yield hcoatnet("data", "scan", data, "--out", out / "manifest.csv")
    yield hcoatnet("train", "--data", data, "--out", out / "run", *flags(SMALL))
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "rule"), [(truncate, "truncated"), (make_empty, "empty"), (make_text, "not an image"), (bomb, "pixels")]
)
def test_a_spoilt_photo_is_named_with_what_is_wrong(folder, hcoatnet, tmp_path, spoil, rule):
    spoil(folder / "red" / "3.png")
    out = tmp_path / "out"
    out.mkdir()
    for result in both_commands(hcoatnet, folder, out):
        check(result, "red/3.png", rule)


def test_all_spoilt_photos_are_shown_at_once(folder, hcoatnet, tmp_path):
    for number, spoil in enumerate((truncate, make_empty, make_text, bomb)):
        spoil(folder / "red" / f"{number}.png")
    check(hcoatnet("data", "scan", folder, "--out", tmp_path / "m.csv"), *(f"red/{number}.png" for number in range(4)))


def test_a_missing_folder(hcoatnet, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for result in both_commands(hcoatnet, tmp_path / "nothing", out):
        check(result, "nothing")


def test_an_empty_class(folder, hcoatnet, tmp_path):
    (folder / "violet").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    for result in both_commands(hcoatnet, folder, out):
        check(result, "violet")


def test_one_class_only(folder, hcoatnet, tmp_path):
    shutil.rmtree(folder / "red")
    shutil.rmtree(folder / "blue")
    check(hcoatnet("train", "--data", folder, "--out", tmp_path / "run", *flags(SMALL)), "green", "class")
    assert not (tmp_path / "run").exists()


def test_a_class_with_too_few_groups(folder, hcoatnet, tmp_path):
    for number in range(2, 6):
        (folder / "red" / f"{number}.png").unlink()
    check(hcoatnet("train", "--data", folder, "--out", tmp_path / "run", *flags(SMALL)), "red", "group")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def split_case(manifest_file, hcoatnet, tmp_path):
    """Train with an edited split file: call with a function of its lines."""
    original = tmp_path / "split.csv"
    assert hcoatnet("data", "split", manifest_file, "--out", original)[0] == 0
    header, *rows = original.read_text().splitlines()

    def attempt(edit):
        edited = tmp_path / "edited.csv"
        edited.write_text("\n".join([header, *edit(rows)]) + "\n")
        return hcoatnet("train", "--data", manifest_file, "--split", edited, "--out", tmp_path / "run", *flags(SMALL))

    yield attempt
    assert not (tmp_path / "run").exists()


def test_a_split_that_leaks_a_patient(split_case):
    def swap_one(rows):
        number = next(i for i, row in enumerate(rows) if row.endswith(",train"))
        return [row.replace(",train", ",test") if i == number else row for i, row in enumerate(rows)]

    check(split_case(swap_one), "train", "test", "blue-")


def test_a_split_that_misses_photos(split_case):
    check(split_case(lambda rows: rows[1:]), "blue/p0_0.png")


def test_a_split_with_a_class_absent_from_training(split_case):
    check(
        split_case(lambda rows: [row.replace(",train", ",val") if row.startswith("red/") else row for row in rows]),
        "red",
        "train",
    )


def test_no_data_at_all(hcoatnet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(hcoatnet("train"), "--data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "h_coatnet_tinny"}, ["h_coatnet_tinny", "h_coatnet_tiny"]),
        ({"model_options": "importance=norm"}, ["importance", "cnn"]),
        ({"model": "h_coatnet_atto", "model_options": "importance=best"}, ["best", "gradient"]),
        ({"lr": "fast"}, ["--lr"]),
        ({"dropout": 3}, ["--dropout", "[0, 0.95]"]),
        ({"lrr": 3}, ["--lrr", "--lr"]),
        ({"device": "cuda"}, ["cuda", "not available"]),
        ({"precision": "fp16"}, ["fp16", "GPU"]),
        ({"init": "pretrained:none.safetensors"}, ["none.safetensors"]),
        ({"config": "none.yaml"}, ["none.yaml"]),
        ({"split": "none.csv"}, ["none.csv"]),
        ({"resume": "none"}, ["none", "config.yaml"]),
    ],
)
def test_wrong_flags(hcoatnet, manifest_file, tmp_path, changes, words):
    import torch

    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    base = [] if "resume" in changes else ["--data", manifest_file, "--out", tmp_path / "run"]
    check(hcoatnet("train", *base, *flags(SMALL | changes)), *words)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_checkpoint(
    hcoatnet, manifest_file, tmp_path, monkeypatch
):
    from hcoatnet.training import loop

    step = loop.Learner.step

    def spoil(self, group, objective):
        loss = step(self, group, objective)
        return loss * float("nan") if self.updates == 7 else loss  # 38 photos: 5 steps an epoch

    monkeypatch.setattr(loop.Learner, "step", spoil)
    out = tmp_path / "run"
    check(hcoatnet("train", "--data", manifest_file, "--out", out, *flags(SMALL)), "nan", "step 2 of epoch 2", "--lr")
    assert (out / "state.pt").exists()
    assert (out / "weights.safetensors").exists()
    assert not (out / "metrics.json").exists()
    assert "step 2 of epoch 2" in (out / "log.txt").read_text()
    monkeypatch.undo()
    code, printed = hcoatnet("train", "--resume", out)
    assert code == 0, printed
    assert "Continuing after epoch 1 of 2" in printed


def test_a_huge_learning_rate_is_caught(hcoatnet, manifest_file, tmp_path):
    check(
        hcoatnet(
            "train",
            "--data",
            manifest_file,
            "--out",
            tmp_path / "run",
            *flags(SMALL | {"lr": 1e38, "optimizer": "sgd"}),
        ),
        "epoch 1",
        "--lr",
    )


def test_a_full_disk_loses_nothing(manifest_file, tmp_path):
    """A limit on the size of files stands for the full disk: the state no longer fits, as on a disk that fills up."""
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "hcoatnet",
        "train",
        "--data",
        str(manifest_file),
        "--out",
        str(out),
        *flags(SMALL),
    ]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))  # weights: 1.0 MB, state: 2.9 MB

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert "--resume auto" in " ".join(done.stderr.split())
    assert not list(out.rglob("*.tmp"))
    assert not (out / "state.pt").exists()
    assert (out / "weights.safetensors").exists()
    again = subprocess.run([*command, "--resume", "auto"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 2


def test_a_second_process_is_kept_out(manifest_file, hcoatnet, tmp_path):
    from hcoatnet.training.run_directory import RunDirectory

    out = tmp_path / "run"
    out.mkdir()
    with RunDirectory(out).locked():
        check(hcoatnet("train", "--data", manifest_file, "--out", out, *flags(SMALL)), "Another process", "--out")
    assert not (out / "config.yaml").exists()


def test_a_ledger_that_cannot_be_written_is_known_before_training(manifest_file, hcoatnet, tmp_path):
    folder = tmp_path / "splits"
    folder.mkdir()
    assert hcoatnet("data", "split", manifest_file, "--out", folder / "split.csv")[0] == 0
    (folder / "test_ledger.jsonl").mkdir()  # even root cannot write to it as a file
    tokens = [
        "train",
        "--data",
        manifest_file,
        "--split",
        folder / "split.csv",
        "--out",
        tmp_path / "run",
        *flags(SMALL),
    ]
    check(hcoatnet(*tokens), "test ledger", "--no-evaluate-test")
    assert not (tmp_path / "run").exists()
    assert hcoatnet(*tokens, "--no-evaluate-test")[0] == 0


def test_evaluating_what_is_no_run_or_not_finished(hcoatnet, tmp_path, manifest_file):
    check(hcoatnet("evaluate", tmp_path), "not a run directory")
