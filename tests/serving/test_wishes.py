"""What is wished: parameters before the Accept header, its qualities, and names of what does not exist."""

from __future__ import annotations

import pytest

from keepmap.errors import OptionError
from keepmap.serving.refusals import Refusal
from keepmap.serving.wishes import Wish, read_wish, stored_wish


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "same"), ("*/*", "same"), ("image/*", "same"), ("image/tiff", "tiff"), ("application/json", "json"),
        ("text/html, image/png;q=0.5, application/json;q=0.9", "json"), ("application/x-npy;q=1, */*;q=0.1", "npy"),
        ("image/png;q=0, */*", "same"), ("image/png;q=x, image/tiff", "tiff"),
    ],
)  # fmt: skip
def test_accept(accept: str, form: str) -> None:
    assert read_wish({}, accept).form == form
    assert read_wish({"as": "png"}, accept).form == "png"


def test_nothing_acceptable() -> None:
    for accept in ("text/html", "image/png;q=0"):
        with pytest.raises(Refusal) as caught:
            read_wish({}, accept)
        assert caught.value.status == 406


@pytest.mark.parametrize(
    "given", [{"shapes": "polygon"}, {"include": "mask,prevew"}, {"frame": "9" * 20}, {"ass": "png"}]
)
def test_misspelt(given: dict[str, str]) -> None:
    with pytest.raises(OptionError) as caught:
        read_wish(given, "")
    assert caught.value.expected


def test_a_wish_is_stored_as_json_holds_it() -> None:
    wish = read_wish({"as": "json", "shapes": "runs", "include": "mask", "frame": "3"}, "", ome=True)
    assert wish == Wish("json", "runs", ("mask",), 3, True)
    assert stored_wish(wish.to_dict()) == wish
