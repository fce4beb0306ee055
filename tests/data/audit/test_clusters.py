from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hcoatnet.data.audit.clusters import (
    DIFFERENT,
    LARGEST_CLUSTER,
    SAME,
    Edge,
    apply_verdicts,
    build_clusters,
    read_verdicts,
)
from hcoatnet.errors import DataError, DataProblems

PATHS = [f"{letter}.jpg" for letter in "abcdefgh"]
ONE_LABEL = {path: ("A", f"P-{path}") for path in PATHS}


def edge(one, other, stage="geometry", confirmed=True):
    low, high = sorted((f"{one}.jpg", f"{other}.jpg"))
    return Edge(low, high, stage, 0.95, confirmed)


edges_of_any_kind = st.lists(
    st.builds(
        edge,
        st.sampled_from("abcd"),
        st.sampled_from("efgh"),
        st.sampled_from(["pixels", "hash", "geometry"]),
        st.booleans(),
    ),
    max_size=12,
)


@given(edges_of_any_kind, st.randoms(use_true_random=False))
def test_clusters_are_connected_components_and_do_not_depend_on_order(edges, random):
    clusters = build_clusters(apply_verdicts(edges, {}), ONE_LABEL)
    ends = np.array([[PATHS.index(path) for path in edge.pair] for edge in edges if edge.confirmed]).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(PATHS), len(PATHS)))
    _, parts = connected_components(graph, directed=False)
    expected = {tuple(np.array(PATHS)[parts == part].tolist()) for part in np.unique(parts)}
    assert {cluster.paths for cluster in clusters} == {paths for paths in expected if len(paths) > 1}
    assert [cluster.paths[0] for cluster in clusters] == sorted(cluster.paths[0] for cluster in clusters)
    shuffled = random.sample(edges, len(edges))
    again = build_clusters(apply_verdicts(shuffled, {}), ONE_LABEL)
    assert [(c.name, c.paths, c.reason) for c in again] == [(c.name, c.paths, c.reason) for c in clusters]


def test_a_cluster_with_two_labels_waits_for_a_person():
    photos = {**ONE_LABEL, "b.jpg": ("B", "P-b")}
    (cluster,) = build_clusters([edge("a", "b"), edge("b", "c")], photos)
    assert not cluster.merged
    assert cluster.reason == "holds 2 labels: A, B"
    assert [cluster.state_of(edge) for edge in cluster.edges] == ["ask", "ask"]


def test_a_photo_without_a_label_contradicts_none():
    (cluster,) = build_clusters([edge("a", "b")], {**ONE_LABEL, "b.jpg": ("", "P-b")})
    assert cluster.merged
    assert cluster.labels == ("A",)


@pytest.mark.parametrize(("photos", "merged"), [(LARGEST_CLUSTER, True), (LARGEST_CLUSTER + 1, False)])
def test_a_large_cluster_waits_for_a_person(photos, merged):
    paths = [f"{number:03}.jpg" for number in range(photos)]
    edges = [Edge(one, other, "hash", 1.0, True) for one, other in pairwise(paths)]
    (cluster,) = build_clusters(edges, dict.fromkeys(paths, ("A", "P")))
    assert cluster.merged is merged
    assert (cluster.reason == "") is merged


def test_a_person_joins_what_nothing_found_and_what_was_asked():
    photos = {**ONE_LABEL, "b.jpg": ("B", "P-b")}
    verdicts = {("a.jpg", "b.jpg"): SAME, ("c.jpg", "d.jpg"): SAME}
    edges = apply_verdicts([edge("a", "b")], verdicts)
    assert [(e.stage, e.confirmed, e.score) for e in edges] == [("person", True, 0.95), ("person", True, None)]
    assert [cluster.merged for cluster in build_clusters(edges, photos, verdicts)] == [True, True]


def test_only_what_a_person_joined_is_merged_in_a_cluster_that_still_waits():
    photos = {**ONE_LABEL, "c.jpg": ("B", "P-c")}
    verdicts = {("a.jpg", "b.jpg"): SAME}
    (cluster,) = build_clusters(apply_verdicts([edge("a", "b"), edge("b", "c")], verdicts), photos, verdicts)
    assert {e.pair: cluster.state_of(e) for e in cluster.edges} == {
        ("a.jpg", "b.jpg"): "merged",
        ("b.jpg", "c.jpg"): "ask",
    }


def test_a_person_takes_a_pair_apart():
    verdicts = {("a.jpg", "b.jpg"): DIFFERENT, ("e.jpg", "f.jpg"): DIFFERENT}
    (settled,) = apply_verdicts([edge("a", "b")], verdicts)
    assert (settled.stage, settled.confirmed) == ("person", False)
    assert build_clusters([settled], ONE_LABEL, verdicts) == ()


def test_equal_bytes_cannot_be_taken_apart():
    (settled,) = apply_verdicts([edge("a", "b", "file")], {("a.jpg", "b.jpg"): DIFFERENT})
    assert settled.confirmed


def test_equal_bytes_with_two_labels_are_merged_and_asked_about():
    photos = {**ONE_LABEL, "b.jpg": ("B", "P-b")}
    (cluster,) = build_clusters([edge("a", "b", "file")], photos)
    assert cluster.reason == "holds 2 labels: A, B"
    assert cluster.state_of(cluster.edges[0]) == "merged"
    verdicts = {("a.jpg", "b.jpg"): SAME}
    (cluster,) = build_clusters(apply_verdicts([edge("a", "b", "file")], verdicts), photos, verdicts)
    assert cluster.merged


def test_a_label_conflict_is_settled_where_a_person_joined_the_labels():
    photos = {**ONE_LABEL, "c.jpg": ("B", "P-c"), "d.jpg": ("B", "P-d")}
    found = [edge("a", "b"), edge("b", "c"), edge("c", "d")]
    verdicts = {("b.jpg", "c.jpg"): SAME}
    (cluster,) = build_clusters(apply_verdicts(found, verdicts), photos, verdicts)
    assert cluster.labels == ("A", "B")
    assert cluster.merged


def test_photos_said_to_differ_that_others_link_are_asked_about_again():
    verdicts = {("a.jpg", "c.jpg"): DIFFERENT}
    edges = apply_verdicts([edge("a", "b"), edge("b", "c"), edge("a", "c")], verdicts)
    (cluster,) = build_clusters(edges, ONE_LABEL, verdicts)
    assert cluster.reason == "a.jpg and c.jpg are said to be not the same, but other photos link them"


def test_the_first_confirmed_edge_of_a_pair_counts():
    found = apply_verdicts([edge("a", "b", "name", False), edge("a", "b", "hash"), edge("a", "b", "geometry")], {})
    assert [e.stage for e in found] == ["hash"]


def write(folder, text):
    (folder / "verdicts.csv").write_text(text)
    return folder / "verdicts.csv"


def test_verdicts_are_read_in_any_order_and_case(tmp_path):
    path = write(
        tmp_path, "path_b,note,path_a,verdict\na.jpg,x,b.jpg,Not the  same\nc.jpg,,a.jpg,same\na.jpg,,d.jpg,\n"
    )
    assert read_verdicts(path, PATHS) == {("a.jpg", "b.jpg"): DIFFERENT, ("a.jpg", "c.jpg"): SAME}


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        ("a.jpg,b.jpg,maybe", "verdict"),
        ("a.jpg,x.jpg,same", "photo not in the manifest"),
        ("a.jpg,a.jpg,same", "one photo"),
        ("a.jpg,b.jpg,same\nb.jpg,a.jpg,not the same", "two verdicts"),
    ],
)
def test_verdicts_that_cannot_be_obeyed_are_refused(tmp_path, rows, rule):
    with pytest.raises(DataProblems) as caught:
        read_verdicts(write(tmp_path, f"path_a,path_b,verdict\n{rows}\n"), PATHS)
    assert [problem.rule for problem in caught.value.problems] == [rule]


def test_a_table_without_verdicts_is_refused(tmp_path):
    with pytest.raises(DataError, match="verdict"):
        read_verdicts(write(tmp_path, "path_a,path_b\na.jpg,b.jpg\n"), PATHS)
