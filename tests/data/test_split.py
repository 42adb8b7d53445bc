"""The split partitions, parts no group, depends on names and seed alone, changes little when a file is added."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmap.data.split import Candidate, Division, divide, hold_out
from keepmap.errors import DataError, OptionError

STEMS = st.lists(st.text(max_size=5), min_size=2, max_size=60, unique=True)


def of_one_class(stems: list[str]) -> dict[str, list[int]]:
    return {stem: [0] for stem in stems}


@given(STEMS, st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_a_partition_that_file_order_does_not_change(stems: list[str], seed: int, random: object) -> None:
    train, validation = hold_out(of_one_class(stems), seed=seed)
    assert sorted([*train, *validation]) == sorted(stems)
    assert train
    assert len(validation) == max(1, round(0.15 * len(stems)))
    shuffled = list(stems)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hold_out(of_one_class(shuffled), seed=seed) == (train, validation)


def test_share_and_limit() -> None:
    stems = [str(number) for number in range(1000)]
    assert len(hold_out(of_one_class(stems), seed=0)[1]) == 40
    assert len(hold_out(of_one_class(stems), seed=0, share=0.5, most=1000)[1]) == 500
    assert [len(part) for part in hold_out(of_one_class(stems[:2]), seed=0, share=1.0)] == [1, 1]


def test_seeds_differ_and_one_more_file_moves_at_most_one() -> None:
    stems = [f"image {number}" for number in range(100)]
    held = set(hold_out(of_one_class(stems), seed=0)[1])
    assert held != set(hold_out(of_one_class(stems), seed=1)[1])
    assert len(held - set(hold_out(of_one_class([*stems, "new"]), seed=0)[1])) <= 1


def test_the_split_of_a_seed_is_fixed_for_good() -> None:
    assert hold_out(of_one_class(list("abcdefghijkl")), seed=0)[1] == ("f", "h")


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"One image cannot be split\."):
        hold_out({"a": [0]}, seed=0)


@given(st.integers(0, 1000))
def test_rare_classes_are_in_both_parts_where_they_can_be(seed: int) -> None:
    classes = {f"i{n}": [0, 1] for n in range(30)} | {"r1": [0, 2], "r2": [0, 2], "lonely": [0, 3]}
    train, validation = hold_out(classes, seed=seed, share=0.1)
    assert len(validation) == 3
    for kind in (0, 1, 2):
        assert any(kind in classes[stem] for stem in train)
        assert any(kind in classes[stem] for stem in validation)


def test_an_empty_image_is_not_the_only_one_held_out() -> None:
    classes = {"empty": [0], "a": [0, 1], "b": [0, 1]}
    for seed in range(20):
        assert hold_out(classes, seed=seed)[1] in (("a",), ("b",))


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 6), min_size=2, max_size=40), st.integers(0, 99))
def test_no_group_is_parted(group_of: dict[str, int], seed: int) -> None:
    groups = {stem: str(group) for stem, group in group_of.items()}
    if len(set(groups.values())) < 2:
        with pytest.raises(DataError, match="One group of images cannot be split"):
            hold_out(of_one_class(list(groups)), groups=groups, seed=seed)
        return
    train, validation = hold_out(of_one_class(list(groups)), groups=groups, seed=seed)
    assert train and validation
    assert sorted([*train, *validation]) == sorted(groups)
    assert not {groups[stem] for stem in train} & {groups[stem] for stem in validation}
    sizes = [list(groups.values()).count(group) for group in set(groups.values())]
    assert len(validation) <= max(1, round(0.15 * len(groups)), min(sizes))


def candidates(stems: str, digests: str = "", classes: dict[str, tuple[int, ...]] | None = None) -> list[Candidate]:
    """One for each word; digests in the same order, "-" for a plain image."""
    names, equal = stems.split(), digests.split() or stems.split()
    return [
        Candidate(stem, f"{stem}.png", (classes or {}).get(stem, (0, 1)), digest.strip("-"))
        for stem, digest in zip(names, equal, strict=True)
    ]


def split(
    stems: str, digests: str = "", *, rule: str = "found", fixed: Path | None = None, seed: int = 0,
    classes: dict[str, tuple[int, ...]] | None = None,
) -> Division:  # fmt: skip
    return divide(candidates(stems, digests, classes), rule=rule, fixed=fixed, seed=seed, share=0.2)


TILES = " ".join(f"img{image}_tile_{tile}" for image in range(10) for tile in range(3))


@pytest.mark.parametrize("seed", range(5))
def test_found_groups_stay_whole_and_are_named(seed: int) -> None:
    division = split(TILES, seed=seed)
    assert division.rule == "found"
    assert len(division.validation) == 6
    assert {division.groups[s] for s in division.train}.isdisjoint(division.groups[s] for s in division.validation)
    assert division.remarks == (
        "groups  10 found by what stands before the last number of the name (img0, img1, img2, img3, img4 and 5 more), "
        "whole groups are held out",
    )


@pytest.mark.parametrize(
    ("stems", "classes", "why"),
    [
        ("s1_1 s1_2 s2_1 s2_2 s3_1 s3_2", None, "not used: fewer than 4"),
        (" ".join(f"s{s}_{n}" for s in range(4) for n in range(9)), None, ""),
        (" ".join(f"s{s}_{n}" for s in range(4) for n in range(2 + 7 * (s > 0))), None, ""),
        (" ".join(f"s{s}_{n}" for s in range(4) for n in range(9)) + " a b", None, ""),
        ("c1_1 c1_2 c2_1 c2_2 c3_1 c3_2 c4_1 c4_2", {f"c{c}_{n}": (0, c) for c in range(1, 5) for n in (1, 2)},
         "not used: a class would leave the training"),
        ("s1_1 s1_2 s2_1 s2_2 s3_1 s3_2 a", None, ""),
        (" ".join(f"s{s}_{n}" for s in range(4) for n in range(60 - 10 * (s == 3))),
         {f"s3_{n}": (0, 1, 2) for n in range(50)}, "not used: one alone is 60 of 230 images"),
        (" ".join(f"s{s}_{n}" for s in range(1, 4) for n in range(30)) + " " + " ".join(f"d{n}" for n in range(3)),
         None, ""),
    ],
)  # fmt: skip
def test_found_groups_are_dropped_where_they_would_do_harm(
    stems: str, classes: dict[str, tuple[int, ...]] | None, why: str
) -> None:
    division = split(stems, classes=classes)
    assert (division.rule == "none") is bool(why)
    assert why in division.remarks[0]
    assert division.remarks[0].endswith("insists" if why else "whole groups are held out")
    assert bool(division.groups) is not bool(why)


def test_equal_images_stay_together_and_plain_ones_need_not() -> None:
    stems = " ".join(f"i{n}" for n in range(20))
    equal = "a a " + " ".join(f"d{n}" for n in range(2, 20))
    sides = set()
    for seed in range(30):
        division = split(stems, equal, rule="none", seed=seed)
        assert ("i0" in division.train) is ("i1" in division.train)
        assert division.remarks == ("groups  1 image is equal to others and stay with them",)
        sides.add("i0" in division.train)
    assert sides == {True, False}
    assert split(stems, " ".join("-" * 20), rule="none").groups == {}


def test_a_rule_that_was_asked_for_must_leave_two_groups() -> None:
    with pytest.raises(DataError, match=r"(?s)--group-by folder puts all images into one group.*--group-by none"):
        split("a b c", rule="folder")
    assert set(split("x/a x/b y/c", rule="folder").validation) in ({"y/c"}, {"x/a", "x/b"})


def test_a_fixed_list(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_text("c\n\na\n")
    division = split("a b c d", fixed=path)
    assert (division.train, division.validation) == (("b", "d"), ("a", "c"))
    assert division.rule == f"--validation {path}"
    with pytest.raises(DataError, match=r"(?s)b\.png and a\.png are equal, and .*val\.txt parts them.*name both"):
        split("a b c d", "same same x y", fixed=path)
    path.write_text("s1_a\n")
    with pytest.raises(DataError, match=r"are of one group, s1, by --group-by \(s\.\)"):
        split("s1_a s1_b s2_a", fixed=path, rule="(s.)")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\nbb", "names bb, which is no image"), ("", "leaves one part"), ("a\nb\nc\nd", "leaves one part")],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "val.txt"
    path.write_text(text)
    with pytest.raises(OptionError, match=rf"val\.txt {message}"):
        split("a b c d", fixed=path)
    with pytest.raises(OptionError, match="cannot be read"):
        split("a b c d", fixed=tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("alike", "end"),
    [([n % 8 for n in range(16)], "and stay with them"), ([1] * 16, "and may be parted: fewer than 4")],
)
def test_images_that_look_alike_stay_together_where_that_does_no_harm(alike: list[int], end: str) -> None:
    images = [Candidate(f"x{n}", f"x{n}.png", (0, 1), str(n), str(like)) for n, like in enumerate(alike)]
    division = divide(images, rule="none", fixed=None, seed=0, share=0.25)
    (remark,) = division.remarks
    assert remark == f"groups  16 images look nearly the same as others {end}"
    if "stay" in end:
        held = {int(stem[1:]) for stem in division.validation}
        assert len(held) == 4
        assert all((n in held) is (n + 8 in held) for n in range(8))


def test_names_that_tell_nothing_say_nothing() -> None:
    division = split("a b c d")
    assert (division.rule, division.remarks, division.groups) == ("none", (), {})


def test_a_fixed_list_that_parts_images_which_look_alike_is_told(tmp_path: Path) -> None:
    alike = ("1", "1", "2", "")
    images = [Candidate(stem, f"{stem}.png", (0, 1), stem, like) for stem, like in zip("abcd", alike, strict=True)]
    path = tmp_path / "val.txt"
    path.write_text("a\nc\n")
    (remark,) = divide(images, rule="none", fixed=path, seed=0, share=0.25).remarks
    assert "val.txt parts images that look nearly the same" in remark and remark.endswith(": a and b")
    path.write_text("a\nb\n")
    assert divide(images, rule="none", fixed=path, seed=0, share=0.25).remarks == ()
