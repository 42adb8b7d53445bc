"""Charts are SVG that a page can hold several of, in its own colours."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from keepmap.metrics.confusion import ImageScores, ReliabilityBin
from keepmap.reporting import charts

BINS = (ReliabilityBin(0.0, 0.5, 0, None, None), ReliabilityBin(0.5, 1.0, 7, 0.8, 0.75))
IMAGES = tuple(
    ImageScores(f"{n}", "", 9, None, dice, None, None, None, None, None, None, None, 0.5, ())
    for n, dice in enumerate((0.4, 0.6, None))
)
DRAWN = {
    "losses": lambda: charts.losses([1, 2, 3], [40.0, 2.0, 1.0]),
    "one loss": lambda: charts.losses([1], [-0.5]),
    "validations": lambda: charts.validations([5, 9], [0.2, 0.1], 0),
    "reliability": lambda: charts.reliability(BINS),
    "distribution": lambda: charts.distribution([0.1, 0.9, 1.0], "mean IoU"),
    "forecasts": lambda: charts.forecasts(IMAGES),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_charts_are_small_svg_in_colours_of_the_page(draw: Callable[[], str]) -> None:
    svg = draw()
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert root.attrib["role"] == "img" and root.attrib["aria-label"]
    assert "width" not in root.attrib
    assert "var(--main)" in svg
    assert not re.search("#0[1-5]0[2-6]0[3-7]", svg)
    assert "font-family" not in svg
    assert len(svg) < 40_000
    assert draw() == svg


def test_the_median_of_two_is_between_them() -> None:
    assert "median 0.50" in charts.distribution([0.2, 0.8], "mean IoU")
