"""Each doubt about a data set has its finding, and a sound one has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keepmap.data.facts import FileFacts
from keepmap.data.findings import Finding
from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.survey import survey

LABELS = LabelSet((0, 1), ("background", "cell"), 255, default_colours(2))
COUNTS = {0: 60, 1: 40}


def fact(number: int, name: str = "") -> FileFacts:
    """One of many good pairs, each of its own content and of a hash far from the others'."""
    stem = name or f"x{chr(97 + number)}"
    likeness = 0x1F2E3D4C5B6A7988 * (2 * number + 1) % 2**64
    centres, light = {0: 0.5, 1: 0.5}, {0: 9.0, 1: 90.0}
    return FileFacts(
        stem, Path(f"images/{stem}.png"), Path(f"masks/{stem}.png"), 10, 10, 3, "uint8", "palette", 100,
        (9.0,) * 3, (9.0,) * 3, 0.0, 200.0, COUNTS, centres, light, digest=f"pixels {number}", likeness=likeness,
    )  # fmt: skip


GOOD = [fact(number) for number in range(8)]


def odd(labels: LabelSet | None = LABELS, **changes: object) -> Finding:
    """The only finding where the third of eight facts is changed."""
    (finding,) = survey([*GOOD[:2], replace(GOOD[2], **changes), *GOOD[3:]], labels)  # type: ignore[arg-type]
    assert finding.severity != "error"
    return finding


def test_sound_data_give_nothing() -> None:
    assert survey(GOOD, LABELS) == survey(GOOD, None) == survey([], None) == []


def test_copies_are_named_together() -> None:
    finding = odd(digest="pixels 0", likeness=GOOD[0].likeness)
    assert finding.summary == "images/xa.png is one of 2 images of the same pixels."
    assert finding.others == ("images/xc.png",)
    other_mask = odd(digest="pixels 0", likeness=GOOD[0].likeness, counts={0: 99, 1: 1})
    assert other_mask.summary.endswith("with different masks.")


def test_near_copies_are_named_together() -> None:
    finding = odd(likeness=GOOD[5].likeness ^ 0b1001)
    assert finding.summary == "images/xc.png is one of 2 images that look nearly the same."
    assert finding.severity == "warning"


def test_neighbours_in_a_folder_may_show_one_field() -> None:
    finding = odd(likeness=GOOD[1].likeness ^ 0xFF)
    assert finding.severity == "note"
    assert finding.summary == "2 images may show the same field of view as their neighbours."
    assert survey([*GOOD, replace(fact(9, "other/z"), likeness=GOOD[-1].likeness ^ 0xFF)], LABELS) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"digest": ""}, "is of one colour"),
        ({"high": 1.0}, "is far darker than the other images"),
        ({"dtype": "uint16", "high": 9.0}, "is far darker than the other images"),
        ({"orientation": 3, "width": 20}, "is turned by its EXIF data, and its mask may not be"),
        ({"orientation": 6}, "is turned by its EXIF data, and its mask may not be"),
        ({"counts": {255: 100}}, "is ignored as a whole"),
        ({"counts": {0: 90, 255: 10}}, "1 of 8 masks hold background only"),
        ({"height": 50, "width": 50}, "is far larger than the other images"),
        ({"height": 2, "width": 2}, "is far smaller than the other images"),
    ],
)
def test_an_odd_file_is_named(changes: dict[str, object], words: str) -> None:
    finding = odd(**changes)
    assert words in finding.summary
    assert "xc.png" in finding.file


def test_a_turned_image_whose_sides_fit_is_no_doubt() -> None:
    assert survey([*GOOD[:2], replace(GOOD[2], orientation=6, width=20)], LABELS) == []


@pytest.mark.parametrize(
    ("last", "words"),
    [({}, "does not occur"), ({2: 50}, "occurs in one mask only"), ({2: 0}, "does not occur")],
)
def test_a_rare_class_is_named(last: dict[int, int], words: str) -> None:
    labels = LabelSet((0, 1, 2), ("background", "cell", "dust"), None, default_colours(3))
    held = {**COUNTS, **{value: count for value, count in last.items() if count}}
    (finding,) = survey([*GOOD[:7], replace(GOOD[7], counts=held)], labels)
    assert finding.summary == f"Class 2 dust {words}."


def test_a_tiny_class_is_named() -> None:
    labels = LabelSet((0, 1, 2), ("background", "cell", "dust"), None, default_colours(3))
    (finding,) = survey([replace(f, counts={0: 10**6, 1: 10**6, 2: 3}) for f in GOOD], labels)
    assert finding.summary == "Class 2 dust is rare."


def test_names_that_form_groups_are_noted() -> None:
    facts = [fact(n, f"p{p}_{n}") for n, p in enumerate("11122234")]
    (finding,) = survey(facts, LABELS)
    assert finding.summary == "The names form 2 groups of images."
    assert finding.found == "p1 (3), p2 (3)"
