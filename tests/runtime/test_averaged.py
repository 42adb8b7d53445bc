"""Means of networks and views: against computing each by hand, turned with their image, and equal in parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from keepmap.errors import OptionError
from keepmap.geometry.tiles import cover, round_up
from keepmap.networks.catalogue import build_network
from keepmap.runtime.averaged import AveragedRuntime, View, views_of
from keepmap.runtime.torch_runtime import TorchRuntime


@pytest.fixture(scope="module")
def runtimes() -> list[TorchRuntime]:
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_network("unet", channels=2, classes=3, options={"widths": (4, 8), "norm": "none"})
        network.set_normalisation([100.0 + seed, 120.5], [60.0] * 2)
        made.append(TorchRuntime(network, device="cpu", precision="float32"))
    return made


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 250, (1, 2, height, width)).astype(np.uint8)


def test_an_ensemble_is_the_mean(runtimes) -> None:
    x = pixels(17, 23)
    both = AveragedRuntime(runtimes)
    values = [runtime.run(x, "probabilities") for runtime in runtimes]
    expected = (values[0] + values[1]) / 2
    assert np.allclose(both.run(x, "probabilities"), expected, atol=1e-6)
    assert np.array_equal(both.run(x), expected.argmax(1))
    assert both.run(x).dtype == np.uint8
    assert np.allclose(np.exp(both.run(x, "logits")), expected, atol=1e-6)
    assert (both.stride, both.reach, both.local) == (runtimes[0].stride, runtimes[0].reach, True)


TURNED: dict[str, list[Callable[[np.ndarray], np.ndarray]]] = {
    "flips": [lambda x: x[..., ::-1], lambda x: x[..., ::-1, :]],
    "rotations": [lambda x: np.rot90(x, 1, (2, 3)), lambda x: np.rot90(x, 3, (2, 3))],
    "flips,rotations": [lambda x: x.swapaxes(2, 3)],
    "flips, scales": [lambda x: x[..., ::-1]],
}


@pytest.mark.parametrize("words", TURNED)
def test_the_mean_turns_with_its_image(runtimes, words) -> None:
    runtime = AveragedRuntime(runtimes[:1], views_of(words))
    side = 2 * runtime.stride
    x = pixels(side, 2 * side)
    values = runtime.run(x, "probabilities")
    assert np.allclose(values.sum(1), 1, atol=1e-5)
    assert np.abs(values - runtimes[0].run(x, "probabilities")).max() > 1e-4
    for turn in TURNED[words]:
        assert np.allclose(runtime.run(turn(x), "probabilities"), turn(values), atol=2e-6)


def test_how_many_views() -> None:
    counts = {"flips": 4, "rotations": 4, "scales": 3, "flips,rotations": 8, "flips,rotations,scales": 24}
    assert {words: len(set(views_of(words))) for words in counts} == counts
    assert all(View() in views_of(words) for words in counts)
    with pytest.raises(OptionError, match="did you mean flips"):
        views_of("flip")


@pytest.mark.parametrize("words", ["flips,rotations", "scales", "flips,rotations,scales"])
@pytest.mark.parametrize("size", [(61, 90), (96, 37)])
def test_parts_with_their_context_equal_the_whole(runtimes, words, size) -> None:
    runtime = AveragedRuntime(runtimes, views_of(words))
    x, stride = pixels(*size), runtime.stride
    whole = runtime.run(x, "probabilities")
    halo = round_up(runtime.reach[0], stride), round_up(runtime.reach[1], stride)
    window = sum(halo) + stride
    window = (window, window)
    count = 0
    for tile in cover(size, window, (halo, halo), (stride, stride)):
        part = runtime.run(x[(..., *tile.read)], "probabilities")[(..., *tile.crop)]
        assert np.abs(part - whole[(..., *tile.write)]).max() < 5e-6
        count += 1
    assert count > 1


def test_it_keeps_out_of_bands_and_score_maps(runtimes) -> None:
    runtime = AveragedRuntime(runtimes, views_of("scales"))
    assert runtime.peak_bytes(64, 64) > runtimes[0].peak_bytes(80, 80)
    assert runtime.free_memory() > 0
    for call in (lambda: runtime.band_bytes(8, 8), lambda: runtime.stream((8, 8), 8, lambda rows: pixels(8, 8)[0])):
        with pytest.raises(TypeError, match="in tiles"):
            call()
    for call in (runtime.check_scores, lambda: runtime.scores(pixels(8, 8))):
        with pytest.raises(OptionError, match="no coarse score map"):
            call()
