import pandas as pd
import pytest

from hcoatnet.data.audit.clusters import Cluster
from hcoatnet.data.audit.straddling import read_subsets, straddling, subsets_of_folders
from hcoatnet.data.manifest import Manifest
from hcoatnet.errors import SplitError


def cluster(name, *paths, reason=""):
    return Cluster(name, paths, (), ("A",), paths, reason)


CLUSTERS = (
    cluster("c0001", "1", "2"),
    cluster("c0002", "3", "4", "9", reason="holds 2 labels"),
    cluster("c0003", "5", "6"),
)


def test_a_hold_out_split(tmp_path):
    (tmp_path / "split.csv").write_text(
        "path,group,subset\n1,g,train\n2,g,test\n3,g,val\n4,g,train\n5,g,val\n6,g,val\n"
    )
    found = straddling(CLUSTERS, read_subsets(tmp_path / "split.csv"))
    assert [(each.cluster, each.subsets, each.merged) for each in found] == [
        ("c0001", {"test": ("2",), "train": ("1",)}, True),
        ("c0002", {"train": ("4",), "val": ("3",)}, False),
    ]


def test_folds_straddle_if_any_repeat_does(tmp_path):
    rows = [f"{path},{repeat},{fold}" for repeat in range(2) for path, fold in zip("123456", "001122", strict=True)]
    (tmp_path / "folds.csv").write_text("path,repeat,fold\n" + "\n".join(rows) + "\n")
    assert straddling(CLUSTERS, read_subsets(tmp_path / "folds.csv")) == ()
    rows[-1] = "6,1,0"
    (tmp_path / "folds.csv").write_text("path,repeat,fold\n" + "\n".join(rows) + "\n")
    (only,) = straddling(CLUSTERS, read_subsets(tmp_path / "folds.csv"))
    assert only.subsets == {"fold 0": ("6",), "fold 2": ("5",)}


def test_folders_of_a_source():
    table = pd.DataFrame({"path": list("123456"), "source_split": ["train", "test", "train", "train", "", "val"]})
    (only,) = straddling(CLUSTERS, subsets_of_folders(Manifest(table, None)))
    assert only.cluster == "c0001"
    assert subsets_of_folders(Manifest(table.drop(columns="source_split"), None)) == []


def test_what_is_no_split_file_is_refused(tmp_path):
    (tmp_path / "split.csv").write_text("path,part\n1,a\n")
    with pytest.raises(SplitError, match="a split file has"):
        read_subsets(tmp_path / "split.csv")
