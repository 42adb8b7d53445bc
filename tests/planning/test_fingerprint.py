"""The fingerprint's figures against the same figures computed from the pixels."""

from pathlib import Path

import numpy as np

from keepmap.data.facts import FileFacts
from keepmap.data.glance import Glance
from keepmap.data.labels import LabelSet
from keepmap.planning.fingerprint import fingerprint

LABELS = LabelSet(values=(0, 255), names=("background", "cell"), ignore=7, colours=((0, 0, 0), (255, 0, 0)))


def facts_of(image: np.ndarray, mask: np.ndarray) -> FileFacts:
    values = [int(v) for v in np.unique(mask)]
    rows = (np.indices(mask.shape)[0] + 0.5) / mask.shape[0]
    return FileFacts(
        stem="x", image=Path("x.png"), mask=Path("x.png"), height=mask.shape[0], width=mask.shape[1],
        channels=len(image), dtype=str(image.dtype), mask_mode="8-bit grey", measured=mask.size, low=0.0, high=255.0,
        sums=tuple(float(c.sum(dtype=float)) for c in image),
        squares=tuple(float((c.astype(float) ** 2).sum()) for c in image),
        counts={v: int((mask == v).sum()) for v in values},
        row_centres={v: float(rows[mask == v].mean()) for v in values},
        brightness={v: float(image.mean(axis=0)[mask == v].mean()) for v in values},
    )  # fmt: skip


def test_figures_equal_those_of_the_pixels() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (2, h, w), dtype=np.uint8) for h, w in ((20, 30), (50, 10), (31, 33))]
    masks = [random.choice([0, 255, 7], i.shape[1:], p=[0.7, 0.2, 0.1]) for i in images]
    figures = fingerprint([facts_of(i, m) for i, m in zip(images, masks, strict=True)], LABELS)
    for channel in range(2):
        pixels = np.concatenate([i[channel].ravel() for i in images]).astype(float)
        np.testing.assert_allclose(figures.mean[channel], pixels.mean())
        np.testing.assert_allclose(figures.deviation[channel], pixels.std())
    everything = np.concatenate([m.ravel() for m in masks])
    np.testing.assert_allclose(figures.class_shares[1], (everything == 255).sum() / (everything != 7).sum())
    assert (figures.images, figures.channels, figures.dtype) == (3, 2, "uint8")
    assert figures.value_range == (0.0, 255.0)
    assert (figures.heights, figures.widths) == ((20, 31, 50), (10, 30, 33))
    assert figures.image_shares == (1.0, 1.0)
    shares = [(everything == value).sum() / (everything != 7).sum() for value in (0, 255)]
    np.testing.assert_allclose(figures.median_frequency, [np.median(shares) / share for share in shares])


def test_where_classes_lie_and_which_is_brighter() -> None:
    mask = np.zeros((40, 40), int)
    mask[:10] = 255
    dark = np.where(mask == 255, 20, 200).astype(np.uint8)[None]
    bright = 220 - dark
    figures = fingerprint([facts_of(dark, mask), facts_of(bright, mask), facts_of(bright, mask)], LABELS)
    np.testing.assert_allclose(figures.row_offsets, (0.125, -0.375))
    np.testing.assert_allclose(figures.brighter, 2 / 3)


def test_a_closer_look_is_taken_over() -> None:
    seen = Glance(1, ((0.0, 1.0, 2.0),), ((7.0, 8.0, 99.0), (1.0, 2.0, 3.0)))
    figures = fingerprint([facts_of(np.ones((1, 5, 5), np.uint8), np.zeros((5, 5), int))], LABELS, seen)
    assert (figures.looked_at, figures.percentiles, figures.large_object) == (1, seen.percentiles, 3.0)


def test_one_class_alone_says_nothing_about_brightness() -> None:
    figures = fingerprint([facts_of(np.ones((1, 5, 5), np.uint8), np.zeros((5, 5), int))], LABELS)
    assert figures.brighter == 1.0
    np.testing.assert_allclose(figures.row_offsets, (0.0, 0.0), atol=1e-12)
    assert figures.deviation == (0.0,)
