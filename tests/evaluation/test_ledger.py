"""The test ledger counts every opening of the splits asked for, and each configuration once."""

from pathlib import Path

from hcoatnet.evaluation.ledger import Openings, count_openings, ledger_beside, record_opening


def opened(ledger: Path, split: str, config: str) -> None:
    record_opening(ledger, run="r", weights_sha256="w", split_sha256=split, config_sha256=config)


def test_openings_over_several_splits_and_ledgers(tmp_path: Path) -> None:
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for split, config in (("s0", "x"), ("s0", "x"), ("s1", "x"), ("s1", "y"), ("elsewhere", "z")):
        opened(one, split, config)
    opened(other, "s0", "w")
    assert count_openings([one], {"s0"}) == Openings(2, 1)
    assert count_openings([one], {"s0", "s1"}) == Openings(4, 2)
    assert count_openings([one, other], {"s0", "s1"}) == Openings(5, 3)
    assert count_openings([], {"s0"}) == Openings(0, 0)
    assert count_openings([tmp_path / "none.jsonl"], {"s0"}) == Openings(0, 0)


def test_a_torn_line_is_no_opening(tmp_path: Path) -> None:
    ledger = tmp_path / "a.jsonl"
    opened(ledger, "s0", "x")
    with ledger.open("a") as stream:
        stream.write('{"split_sha256": "s0", "conf')
    assert count_openings([ledger], {"s0"}) == Openings(1, 1)


def test_where_a_ledger_lies(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert ledger_beside(Path("a/split.csv"), Path("b/manifest.csv")) == Path("a/test_ledger.jsonl")
    assert ledger_beside(None, Path("b/manifest.csv")) == Path("b/test_ledger.jsonl")
    assert ledger_beside(None, tmp_path / "photos") == tmp_path / "photos" / "test_ledger.jsonl"
