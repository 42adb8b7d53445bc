"""Values of few masks are strays where the others then fit a rule."""

from keepmap.data.strays import total_counts, without_strays


def test_the_rarest_go_first() -> None:
    masks = [{0: 90, 255: 10}] * 5 + [{0: 90, 255: 9, 128: 1}, {0: 80, 7: 20}]
    found = without_strays(masks, class_names=None, ignore="auto", solid=None)
    assert found is not None
    assert (found[0].values, found[1]) == ((0, 255), {7, 128})
    assert total_counts(masks) == {0: 620, 7: 20, 128: 1, 255: 59}


def test_most_masks_are_never_to_blame() -> None:
    assert without_strays([{0: 5, 255: 5, 128: 2}] * 3, class_names=None, ignore="auto", solid=None) is None
    many = [dict.fromkeys(range(0, 2000, 3), 1)]
    assert without_strays(many, class_names=None, ignore="auto", solid=None) is None
