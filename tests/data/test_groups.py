"""What belongs together, by each rule; and joining by equal images against a plain search."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmap.data.groups import check_rule, group_stems, join_equal, was_asked
from keepmap.errors import DataError, OptionError


def together(groups: dict[str, str]) -> set[frozenset[str]]:
    """The groups of two stems or more."""
    found = {frozenset(s for s in groups if groups[s] == group) for group in groups.values()}
    return {stems for stems in found if len(stems) > 1}


@pytest.mark.parametrize(
    "stems",
    [
        "img12_tile_3 img12_tile_4 | img13_tile_3 img13_tile_11",
        "0016E5_07959 0016E5_07961 | 0001TP_006690 0001TP_006720",
        "slide3_x100_y200 slide3_x0_y0 slide3_x0_y200 | slide4_x0_y0 slide4_x1_y1",
        "cat_patch_1 cat_patch_2 | dog_patch1 dog_patch2",
        "a/scene1-07 a/scene1-08 | b/scene1-07 b/scene1-08",
        "ulm_000000_000019_leftImg8bit ulm_000000_000020_leftImg8bit | bonn_000000_000019_leftImg8bit "
        "bonn_000000_000020_leftImg8bit",
        "2023-01-05_17 2023-01-05_18",
    ],
)
def test_names_of_one_source(stems: str) -> None:
    expected = {frozenset(part.split()) for part in stems.split("|")}
    assert together(group_stems(stems.replace("|", "").split(), "found")) == expected


@pytest.mark.parametrize(
    "stems",
    [
        "cat_001 cat_002 dog_001 dog_002", "cells_000 cells_001", "123 124 125", "00012 00013", "a b c", "max3 max4",
        "07ab3c41 07ab3c9d f0e1 f0e2a", "DJI_0012 DJI_0013", "a1 b1", "img12 img13", "x/1 x/2", "1", "a_left b_left",
    ],
)  # fmt: skip
def test_names_that_tell_no_source(stems: str) -> None:
    assert not together(group_stems(stems.split(), "found"))


def test_folder_expression_and_none() -> None:
    stems = ["a/x1", "a/x2", "a/b/x1", "y3"]
    assert group_stems(stems, "folder") == {"a/x1": "a", "a/x2": "a", "a/b/x1": "a/b", "y3": "."}
    assert group_stems(stems, r"([xy])\d") == {"a/x1": "x", "a/x2": "x", "a/b/x1": "x", "y3": "y"}
    assert group_stems(stems, "none") == {stem: stem for stem in stems}
    with pytest.raises(DataError, match=r"(?s)gives no group to 3 of 4 images.*a/x1, a/x2, a/b/x1"):
        group_stems(stems, "(y)")


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("group, stem, note\np1, a.png, x\np1, b, y\np2, c/d.e, z\n")
    assert group_stems(["a", "b", "c/d.e"], str(path)) == {"a": "p1", "b": "p1", "c/d.e": "p2"}
    path.write_text("stem,group\na.1,p1\na,p2\n.,p3\n")
    assert group_stems(["a", "a.1"], str(path)) == {"a": "p2", "a.1": "p1"}
    with pytest.raises(DataError, match=r"(?s)gives no group to 1 of 2 images.*found +q"):
        group_stems(["a", "q"], str(path))
    for text, message in (("stem,group\na,1\na,2\n", "a to two groups"), ("name,group\na,1\n", "Line 2 of")):
        path.write_text(text)
        with pytest.raises(OptionError, match=message):
            group_stems(["a"], str(path))


@pytest.mark.parametrize(("rule", "asked"), [("folder", True), ("(a)", True), ("found", False), ("none", False)])
def test_a_folder_was_asked_for(rule: str, asked: bool) -> None:
    """So that few folders are drawn as groups in a training and in an evaluation alike."""
    assert was_asked(rule) == asked


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("(", "is no regular expression"), ("foldr", "did you mean folder"), (".*_tile", "marks no group"),
        ("absent.csv", "cannot be read"),
    ],
)  # fmt: skip
def test_a_bad_rule_is_refused(rule: str, message: str) -> None:
    with pytest.raises(OptionError, match=rf"(?s){message}"):
        check_rule(rule)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", "a", "b", "c"])), min_size=1, max_size=12))
def test_equal_images_join_their_groups(images: list[tuple[int, str]]) -> None:
    groups = {f"s{n}": f"g{group}" for n, (group, _) in enumerate(images)}
    digests = {f"s{n}": digest for n, (_, digest) in enumerate(images)}
    joined = join_equal(groups, digests)
    linked = {
        s: {t for t in groups if groups[s] == groups[t] or (digests[s] and digests[s] == digests[t])} for s in groups
    }
    for start in groups:
        reached: set[str] = set()
        edge = {start}
        while edge:
            reached |= edge
            edge = set().union(*(linked[s] for s in edge)) - reached
        assert reached == {s for s in groups if joined[s] == joined[start]}
