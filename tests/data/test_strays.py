"""Values of few masks are strays where the others then fit a rule."""

import pytest

from keepmap.data.strays import beside_binary, total_counts, without_strays


def test_the_rarest_go_first() -> None:
    masks = [{0: 90, 255: 10}] * 5 + [{0: 90, 255: 9, 128: 1}, {0: 80, 7: 20}]
    found = without_strays(masks, class_names=None, ignore="auto", solid=None)
    assert found is not None
    assert (found[0].values, found[1]) == ((0, 255), {7, 128})
    assert total_counts(masks) == {0: 620, 7: 20, 128: 1, 255: 59}


@pytest.mark.parametrize(
    ("masks", "stray"),
    [
        ([{0, 255}, {0, 255}, {0, 5, 255}, {0}], {5}),
        ([{0, 255}, {0, 5, 255}], set()),
        ([{0, 255}, {0, 1, 255}, {0, 1}], set()),
        ([{0}, {0}, {0, 1}], set()),
    ],
)
def test_what_stands_beside_binary_masks(masks: list[set[int]], stray: set[int]) -> None:
    told = [(values, None) for values in masks]
    for instances in ("auto", "no"):
        assert beside_binary(told, class_names=None, ignore="auto", instances=instances)[1] == stray
    assert beside_binary(told, class_names=None, ignore="5", instances="auto")[1] == set()
    assert beside_binary(told, class_names=None, ignore="auto", instances="yes")[1] == set()


REGIONS, NUMBERS = ({0, 1}, False), ({0, 1, 2, 3}, True)


@pytest.mark.parametrize(
    ("masks", "stray"),
    [
        ([REGIONS, REGIONS, NUMBERS], {2, 3}),
        ([REGIONS, NUMBERS], set()),
        ([({0, 1}, None), ({0, 1}, None), NUMBERS], set()),
        ([REGIONS, REGIONS, ({0, 1, 2, 3}, None)], set()),
    ],
)
def test_one_mask_of_numbers_makes_no_objects_of_masks_of_regions(
    masks: list[tuple[set[int], bool | None]], stray: set[int]
) -> None:
    assert beside_binary(masks, class_names=None, ignore="auto", instances="auto") == ((0, 1), stray)
    assert beside_binary(masks, class_names=None, ignore="auto", instances="no") == ((0, 1), set())


def test_most_masks_are_never_to_blame() -> None:
    assert without_strays([{0: 5, 255: 5, 128: 2}] * 3, class_names=None, ignore="auto", solid=None) is None
    many = [dict.fromkeys(range(0, 2000, 3), 1)]
    assert without_strays(many, class_names=None, ignore="auto", solid=None) is None
