"""Logits become labels and probabilities; argmax in bands is argmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from keepmap.metrics.calibration import tempered
from keepmap.runtime import outputs


@pytest.mark.parametrize(("classes", "dtype"), [(3, np.uint8), (300, np.int16)])
def test_labels_in_bands_are_the_labels(classes, dtype, monkeypatch) -> None:
    logits = torch.randn(2, classes, 33, 20, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(outputs, "_ARGMAX_BYTES", 8 * 2 * 20 * 5)
    labels = outputs.delivered(logits, "labels")
    assert labels.dtype == dtype == outputs.label_dtype(classes)
    assert np.array_equal(labels, logits.argmax(1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [1, 2, 5, 40])
def test_of_equal_logits_the_first_counts_and_nan_counts_most(classes: int, dtype: Any, layout: Any) -> None:
    random = np.random.default_rng(classes)
    values, chances = [-np.inf, -1.0, 0.0, 2.0, np.inf, np.nan], [0.2, 0.2, 0.2, 0.2, 0.19, 0.01]
    numbers = random.choice(values, (2, classes, 37, 41), p=chances)
    logits = torch.from_numpy(numbers).to(dtype).contiguous(memory_format=layout)
    assert np.array_equal(outputs.delivered(logits, "labels"), numbers.argmax(1))


def test_probabilities_sum_to_one_and_logits_are_left_as_they_are() -> None:
    logits = torch.randn(1, 4, 5, 6).to(memory_format=torch.channels_last)
    values = outputs.delivered(logits, "probabilities")
    assert values.dtype == np.float32 and values.flags.c_contiguous
    assert np.allclose(values.sum(1), 1)
    assert np.array_equal(outputs.delivered(logits, "logits"), logits)


def test_a_temperature_changes_probabilities_and_no_label() -> None:
    logits = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    values = outputs.delivered(logits, "probabilities", 2.5)
    assert np.allclose(values, tempered(outputs.delivered(logits, "probabilities"), 2.5, axis=1), atol=1e-6)
    assert np.allclose(outputs.delivered(logits, "logits", 2.5), logits / 2.5)
    assert np.array_equal(outputs.delivered(logits, "labels", 2.5), values.argmax(1))


def test_the_highest_probability_is_of_the_label_where_rounding_makes_them_equal() -> None:
    logits = torch.randn(1, 3, 40, 50, generator=torch.Generator().manual_seed(0)) * 1e-6
    assert (logits.softmax(1).argmax(1) != logits.argmax(1)).any()
    assert np.array_equal(outputs.delivered(logits, "probabilities").argmax(1), outputs.delivered(logits, "labels"))
