"""What exported networks have in common, with a function in place of a package."""

from __future__ import annotations

import numpy as np
import pytest

from keepmap.errors import OptionError, OutOfMemory
from keepmap.protocols import Runtime
from keepmap.runtime.exported import ExportedRuntime
from keepmap.runtime.manifest import Manifest


def runtime(manifest: Manifest, compute=lambda x: x[:, :2]) -> ExportedRuntime:
    return ExportedRuntime(manifest, compute, name="Nothing 1.0", precision="float32", share=1.5)


def test_raw_values_arrive_as_floats_in_order(manifest: Manifest, pixels: np.ndarray) -> None:
    seen = []
    exported = runtime(manifest, lambda x: seen.append(x) or x[:, :2])
    labels = exported.run(pixels[..., ::-1])
    assert seen[0].dtype == np.float32 and seen[0].flags.c_contiguous
    assert np.array_equal(labels, pixels[:, :2, :, ::-1].argmax(1))
    assert labels.dtype == np.uint8 == exported.label_dtype
    assert np.allclose(exported.run(pixels / np.float32(9e3), "probabilities").sum(1), 1)


def test_is_a_runtime_without_bands_and_scores(manifest: Manifest) -> None:
    exported: Runtime = runtime(manifest)
    assert exported.peak_bytes(8, 8) == 1.5 * manifest.peak_bytes(8, 8)
    assert exported.mean.tolist() == [1.0, 2.0, 3.5]
    assert exported.free_memory() > 0
    for call in (lambda: exported.stream((1, 1), 4, lambda rows: np.zeros(1)), lambda: exported.band_bytes(4, 4)):
        with pytest.raises(TypeError, match="whole images or tiles"):
            call()
    for call in (exported.check_scores, lambda: exported.scores(np.zeros((1, 3, 4, 4), np.uint8))):
        with pytest.raises(OptionError, match="no coarse score map"):
            call()


def test_too_little_memory_names_the_remedy_and_other_errors_pass(manifest: Manifest, pixels: np.ndarray) -> None:
    def fail(text: str) -> ExportedRuntime:
        def compute(x: np.ndarray) -> np.ndarray:
            raise RuntimeError(text)

        return runtime(manifest, compute)

    with pytest.raises(OutOfMemory, match="--memory"):
        fail("std::bad_alloc").run(pixels)
    with pytest.raises(RuntimeError, match="something else"):
        fail("something else").run(pixels)
