"""How many changed copies of real photos the audit finds, and whether it joins photos of different people.

    python benchmarks/copies_found.py MANIFEST --same lesion_id --out docs/results/copies_found.json

The audit as ``hcoatnet data audit`` runs it, with its self-test: so many photos, drawn with a seed, are changed in each
way, and each copy is looked for among all photos. ``--same`` names a column whose value photos of one thing share
within a group: how many such pairs the audit joins is counted, too.
"""

import argparse
import time
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

from machine import machine_facts

from hcoatnet.data.audit.audit import Audit, Settings, run_audit
from hcoatnet.data.audit.reading import list_photos
from hcoatnet.data.audit.self_test import SelfTest
from hcoatnet.files import write_json


def changes_of(found: SelfTest) -> dict[str, dict[str, float]]:
    """For each change the share of copies that each stage found, and the interval of all stages together."""
    shares: dict[str, dict[str, float]] = {}
    for row in found.rows:
        shares.setdefault(row.change, {})[row.stage] = row.recall
        if row.stage == "all":
            shares[row.change] |= {"low": row.low, "high": row.high}
    return shares


def pairs_of(audit: Audit, same: str) -> dict[str, Any]:
    """Pairs that the audit joins: by stage, of two groups, of two labels, of those that share a value of ``same``."""
    table = audit.collection.manifest.table
    joined = [edge for edge in audit.duplicates.edges if edge.confirmed]
    known = table.set_index("path")
    both = [(known.loc[edge.path_a], known.loc[edge.path_b]) for edge in joined]
    things = table[table[same] != ""].groupby(["group", same])["path"]
    sharing = {frozenset(pair) for _, paths in things for pair in combinations(paths, 2)}
    scores = [edge.score for edge in joined if frozenset(edge.pair) in sharing and edge.score is not None]
    groups = table["group"].value_counts()
    return {
        "by_stage": audit.duplicates.to_json()["pairs"],
        "joined": len(joined),
        "of_two_labels": sum(one["label"] != other["label"] for one, other in both),
        "of_two_groups": sum(one["group"] != other["group"] for one, other in both),
        "all_of_two_groups": comb(len(table), 2) - sum(comb(count, 2) for count in groups),
        "all_that_share": len(sharing),
        "joined_that_share": sum(frozenset(edge.pair) in sharing for edge in joined),
        "least_score_that_share": min(scores, default=None),
        "largest_score_that_share": max(scores, default=None),
    }


def main() -> None:
    """Audit the photos and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--same", required=True, help="column whose value photos of one thing share within a group")
    parser.add_argument("--photos", type=int, default=250, help="photos that are changed in each way [default: 250]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    asked = parser.parse_args()
    started = time.process_time()
    audit = run_audit(list_photos(asked.manifest), Settings(self_test_photos=asked.photos, seed=asked.seed))
    assert audit.self_test is not None
    content = {
        "photos": len(audit.collection.manifest),
        "groups": int(audit.collection.manifest.table["group"].nunique()),
        "changed": audit.self_test.photos,
        "copies": sum(row.copies for row in audit.self_test.rows if row.stage == "all"),
        "copies_joined_with_another_group": sum(row.false_joins for row in audit.self_test.rows if row.stage == "all"),
        "changes": changes_of(audit.self_test),
        "pairs": pairs_of(audit, asked.same),
        "processor_seconds": round(time.process_time() - started),
        "seed": asked.seed,
        "machine": machine_facts(threads=1),
    }
    write_json(asked.out, content)
    for name, row in content["changes"].items():
        print(name, *(f"{stage} {value:.3f}" for stage, value in row.items()))


if __name__ == "__main__":
    main()
