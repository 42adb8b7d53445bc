"""The documents that scripts write: pages equal to what is written, numbers measured by code that is checked here."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keepmap.metrics.calibration import BINS
from keepmap.metrics.figures import SPECS
from keepmap.metrics.intervals import DRAWS
from keepmap.metrics.surfaces import BOUNDARY_SHARE, DISTANCE_PIXELS, SURFACE_TOLERANCE
from keepmap.metrics.tally import BACKGROUND
from keepmap.networks.catalogue import NETWORKS
from keepmap.networks.describe import multiply_adds, parameters, sketch
from keepmap.networks.unet import UNet, UNetConfig

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCRIPTS = DOCS / "scripts"
PICTURES_BYTES = 1_500_000
masks = arrays.arrays(bool, (9, 12))


def load(name: str) -> ModuleType:
    """A script as a module, found as Python finds it when a script beside it is run."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


arithmetic, experiments, measures, page = map(load, ("arithmetic", "experiments", "measures", "page"))


def small_unet(**options: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(UNetConfig(3, 3, **{"widths": (4, 6, 8), **options})).eval()


# The pages.


def test_networks_page_is_what_the_code_says() -> None:
    assert load("draw_networks").page() == (DOCS / "networks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_page_has_every_option(name: str) -> None:
    section = (DOCS / "networks.md").read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(NETWORKS[name][0])]


def test_metrics_page_has_a_section_for_every_number() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([^]]+)\]\(#([^)]+)\) \|", text, flags=re.MULTILINE)
    shown = {spec.name.removesuffix(", in units") for spec in SPECS}
    assert shown <= {name for name, _ in rows}
    for name, anchor in rows:
        section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        parts = re.findall(r"^\* (\w+):", section, flags=re.MULTILINE)
        assert parts == ["Definition", "Unit", "Reference", "Reading"], name
        assert anchor == re.sub(r"[^\w-]", "", name.lower().replace(" ", "-")), name


def test_metrics_page_has_the_numbers_of_the_code() -> None:
    text = " ".join((DOCS / "metrics.md").read_text(encoding="utf-8").split())
    for words in (
        f"{DISTANCE_PIXELS:,} pixels", f"{100 * BOUNDARY_SHARE:g} % of the image's diagonal", f"{DRAWS:,} draws",
        f"{SURFACE_TOLERANCE:g} px unless", f"{BINS} bins", " or ".join(f"`{name}`" for name in BACKGROUND),
    ):  # fmt: skip
        assert words in text


def test_how_it_works_is_what_was_measured_and_what_the_code_says() -> None:
    assert page.page() == page.PAGE.read_text(encoding="utf-8")


def test_a_field_without_a_result_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.md"
    monkeypatch.setattr(page, "TEXT", text)
    text.write_text("{odd} of {how[steps]}")
    assert page.page() == f"{arithmetic.ODD} of {json.loads(page.RESULTS.read_text())['how']['steps']}"
    text.write_text("{how[long]}")
    with pytest.raises(KeyError):
        page.page()


def test_pictures_are_there_shown_and_small() -> None:
    shown = set(re.findall(r"\(pictures/([\w.]+)\)", page.PAGE.read_text(encoding="utf-8")))
    kept = {path.name: path.stat().st_size for path in page.PICTURES.iterdir() if path != page.RESULTS}
    assert shown == set(kept)
    assert sum(kept.values()) < PICTURES_BYTES


@pytest.mark.parametrize("name", ["how-it-works.md", "metrics.md", "networks.md", "scaling.md", "serving.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert not [link for link in links if not (DOCS / link).exists()]


# What is measured.


@settings(max_examples=30, deadline=None)
@given(masks, masks)
def test_boundary_equals_all_pairs_of_pixels(truth: Any, found: Any) -> None:
    def line(mask: Any) -> list[tuple[int, int]]:
        inside = {(int(i), int(j)) for i, j in np.argwhere(mask)}
        steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
        within = {(i, j) for i in range(mask.shape[0]) for j in range(mask.shape[1])}
        return [(i, j) for i, j in inside if any((i + a, j + b) in within - inside for a, b in steps)]

    a, b = line(truth), line(found)
    diagonal = float(np.hypot(*truth.shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "TOLERANCE", 1 / diagonal)
        score, met, away = measures.boundary(truth, found)
    if not a or not b:
        assert np.isnan([score, met, away]).all() if not a else (score, met, away) == (0.0, 0.0, diagonal)
        return
    distances = np.array([[np.hypot(i - k, j - m) for k, m in b] for i, j in a])
    ways = distances.min(1), distances.min(0)
    near = [(way <= 1).mean() for way in ways]
    assert away == pytest.approx(ways[0].mean())
    assert met == pytest.approx((ways[0] <= 1).mean())
    assert score == pytest.approx(2 * near[0] * near[1] / sum(near) if sum(near) else 0.0)


def test_scores_say_what_and_where() -> None:
    truth = np.zeros((40, 40), np.int16)
    truth[10:30, 10:20], truth[10:30, 20:30] = 1, 2
    assert measures.score([(truth, truth)], 3) == {"iou": 1, "cells": 1, "kind": 1, "f": 1, "met": 1, "away": 0}
    swapped = np.array([0, 2, 1])[truth]
    wrong_kind = measures.score([(truth, swapped)], 3)
    assert (wrong_kind["cells"], wrong_kind["kind"], wrong_kind["away"]) == (1, 0, 0)
    moved = measures.score([(truth, np.roll(truth, 3, 0))], 3)
    assert 0 < moved["away"] <= 3 and moved["f"] < 1 and moved["kind"] == 1


def test_finest_grid_keeps_everything_and_coarser_ones_less() -> None:
    truth = (np.hypot(*np.mgrid[-20:21, -20:23]) < 9).astype(np.int16)
    kept = [(measures.through_grid(truth, 2, stride) == truth).mean() for stride in (1, 4, 32)]
    assert kept[0] == 1 > kept[1] > kept[2]


def test_ripple_is_that_of_the_grid_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 41, 45), dtype=np.uint8)
    colour = (50.0, 140.0, 130.0)
    flat = [measures.ripple(small_unet(up=up), colour, image, side=16) for up in ("bilinear", "nearest")]
    assert max(flat) < 1e-5
    assert measures.ripple(small_unet(), colour, image, side=16) > 1e-2


@pytest.mark.parametrize("kind", [UNet, experiments.UNetWithoutSkips])
def test_probe_finds_the_reach(kind: type[UNet]) -> None:
    torch.manual_seed(0)
    network = kind(UNetConfig(1, 2, widths=(2, 2, 2))).eval()
    assert measures.probed_reach(network) == network.reach


def test_influence_ends_with_the_reach() -> None:
    network = small_unet(widths=(4, 6))
    images = [np.random.default_rng(0).integers(0, 256, (3, 44, 44), dtype=np.uint8)]
    weights = measures.influence(network, images, 12, 8)
    reach = max(network.reach)
    assert weights.sum() == pytest.approx(1)
    assert measures.radius_holding(weights, 1 - 1e-9) <= reach
    assert weights[12 - reach : 13 + reach, 12 - reach : 13 + reach].sum() == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(arrays.arrays(float, (7, 7), elements=st.floats(0, 1)).filter(lambda w: w.sum() > 0), st.floats(0.1, 0.9))
def test_radius_holds_the_share(weights: Any, share: float) -> None:
    radius = measures.radius_holding(weights, share)
    held = [weights[3 - r : 4 + r, 3 - r : 4 + r].sum() for r in (radius, radius - 1) if r >= 0]
    assert held[0] >= share * weights.sum()
    assert len(held) == 1 or held[1] < share * weights.sum()


# What is trained.


def test_no_skip_reaches_the_way_up() -> None:
    """The convolutions of the way up learn nothing from the channels of the skips, and all else is as in a U-Net."""
    whole, cut = (kind(UNetConfig(3, 3, widths=(4, 6, 8))) for kind in (UNet, experiments.UNetWithoutSkips))
    assert {n: p.shape for n, p in whole.state_dict().items()} == {n: p.shape for n, p in cut.state_dict().items()}
    cut(torch.rand(2, 3, 16, 16)).square().mean().backward()
    for merge, skip in zip(cut.merge, (6, 4), strict=True):
        gradient = merge[0].conv.weight.grad
        assert gradient[:, :skip].abs().max() == 0 < gradient[:, skip:].abs().max()


def test_rate_rises_and_falls_to_nothing() -> None:
    recipe = experiments.Recipe(100)
    rates = [recipe.rate(step) for step in range(101)]
    top = int(np.argmax(rates))
    assert 0 < rates[0] < rates[top] <= recipe.learning_rate and rates[100] == pytest.approx(0)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


# What is worked out.


def test_shares_of_the_levels_are_those_of_the_whole() -> None:
    network = sketch("unet", options={"widths": (4, 6, 8)})
    rows = arithmetic.levels(network, 64)
    for share in ("parameters", "work", "memory"):
        assert sum(row[share] for row in rows) == pytest.approx(1)
    costs = arithmetic.totals(network, 64)
    assert costs["parameters"] * 1e6 >= parameters(network) - 1
    assert costs["work"] * 1e9 == pytest.approx(multiply_adds(network, (64, 64)))


def test_sizes_are_those_of_the_paper() -> None:
    valid = arithmetic.valid_sizes(512)
    assert (valid["least"], valid["step"], valid["cut"], valid["crops"]) == (188, 16, 184, [4, 16, 40, 88])
    assert (valid["smaller_out"], valid["larger_out"]) == (324, 340)
    assert arithmetic.halves(101, 5) == [101, 50, 25, 12, 6]
    assert arithmetic.broken([101, 50, 25, 12, 6]) == 25
    assert "25" in arithmetic.broken_join(25) and "24" in arithmetic.broken_join(25)
    with pytest.raises(ValueError, match="nothing breaks"):
        arithmetic.broken_join(24)


def test_a_layer_slides_as_a_convolution() -> None:
    assert arithmetic.dense_layer()["difference"] < 1e-5
