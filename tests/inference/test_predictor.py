"""The predictor: tiles equal the whole on the real networks, any size, and label values that come back."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from keepmap.data.labels import LabelSet, default_colours
from keepmap.errors import DataError, OptionError
from keepmap.geometry.tiles import cover
from keepmap.inference.predictor import Predictor
from keepmap.inference.way import Position
from keepmap.networks.catalogue import build_network
from keepmap.networks.reach import NORMS
from keepmap.protocols import Geometry
from keepmap.runtime.torch_runtime import TorchRuntime

NETWORKS = {
    "unet": ("unet", {"widths": (4, 6, 8)}),
    "unet bilinear": ("unet", {"widths": (4, 6, 8), "up": "bilinear"}),
    "unet without norm": ("unet", {"widths": (4, 6), "norm": "none"}),
    "resnet": ("encoder_unet", {"widths": (16, 12, 8, 6, 4)}),
    "lite0": ("encoder_unet", {"encoder": "efficientnet_lite0", "widths": (16, 12, 8, 6, 4)}),
    "fcn": ("fcn", {"head_width": 8}),
    "unet2015": ("unet2015", {"widths": (4, 6, 8)}),
    "unet pad": ("unet", {"widths": (4, 6, 8), "match": "pad"}),
    "unet attention": ("unet", {"widths": (4, 6, 8), "attention": True}),
}
GLOBAL = {"unet group": ("unet", {"widths": (4, 6, 8), "norm": "group"})}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def runtime(kind: str, channels: int = 1, classes: int = 3) -> TorchRuntime:
    torch.manual_seed(3)
    name, options = {**NETWORKS, **GLOBAL}[kind]
    network = build_network(name, channels=channels, classes=classes, options=options).eval()
    for layer in network.modules():
        if isinstance(layer, NORMS):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    network.set_normalisation([100.0] * channels, [60.0] * channels)
    return TorchRuntime(network, device="cpu", precision="float32")


def labels(*values: int, ignore: int | None = None) -> LabelSet:
    return LabelSet(values, tuple(f"class {v}" for v in values), ignore, default_colours(len(values)))


def predictor(kind: str = "unet", channels: int = 1, memory: int = 2**33, **options) -> Predictor:
    return Predictor(runtime(kind, channels), labels(0, 7, 255), memory_bytes=memory, **options)


def image(*shape: int, dtype="uint8") -> np.ndarray:
    return np.random.default_rng(5).integers(0, 220, shape).astype(dtype)


def logits(of: Predictor, pixels: np.ndarray) -> np.ndarray:
    """Logits of an image (C, H, W) put together from the predictor's own parts."""
    result = np.full((of.runtime.classes, *pixels.shape[1:]), np.nan, np.float32)
    for (rows, columns), part in of._parts(lambda w: pixels[(slice(None), *w)], pixels.shape, "logits", "x"):
        result[:, rows, columns] = part
    return result


SIZES = {
    "unet": (171, 190), "unet bilinear": (171, 203), "unet without norm": (101, 67),
    "resnet": (35, 2700), "lite0": (4100, 33), "fcn": (33, 1900),
    "unet2015": (171, 190), "unet pad": (171, 190), "unet attention": (203, 190),
}  # fmt: skip


@pytest.mark.parametrize("kind", NETWORKS)
def test_tiles_equal_the_whole(kind) -> None:
    whole = predictor(kind)
    tiled = Predictor(whole.runtime, whole.labels, memory_bytes=1)
    pixels = image(1, *SIZES[kind])
    assert whole.plan_way(*SIZES[kind]).kind == "one pass"
    way = tiled.plan_way(*SIZES[kind])
    assert way.kind == "tiles"
    assert way.tiles >= 2
    assert way.exact
    assert tiled.plan_way(*SIZES[kind]) is way
    want, got = logits(whole, pixels), logits(tiled, pixels)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("memory", [1, 2**33])
@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind not in ("unet2015", "unet pad")])
def test_bands_equal_the_whole(kind, memory) -> None:
    """In one column where the memory is ample, in as many as possible where it is not."""
    whole = predictor(kind)
    banded = Predictor(whole.runtime, whole.labels, memory_bytes=memory, way="bands")
    height, width = SIZES[kind][::-1] if kind == "lite0" else SIZES[kind]
    pixels = image(1, height, width)
    way = banded.plan_way(height, width)
    assert (way.kind, way.exact) == ("bands", True)
    assert (way.tiles > 1) == (memory == 1)
    want, got = logits(whole, pixels), logits(banded, pixels)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("kind", ["unet", "unet bilinear", "resnet"])
def test_bands_that_are_entered_further_down_give_the_same_bits(kind) -> None:
    of, pixels = predictor(kind, way="bands"), image(1, 700 if kind == "resnet" else 420, 33)
    shape = pixels.shape
    band = -(-32 // of.runtime.stride) * of.runtime.stride
    way = replace(of.plan_way(*shape[1:]), band=band)
    assert sum(of.runtime.reach) > band

    def parts(start: Position) -> dict[int, np.ndarray]:
        found = of._parts(lambda w: pixels[(slice(None), *w)], shape, "logits", "x", way, start)
        return {rows.start: part for (rows, _), part in found}

    whole = parts(Position())
    for begun in list(whole)[2::7]:
        rest = parts(Position(0, begun))
        assert list(rest) == [row for row in whole if row >= begun]
        assert all(np.array_equal(part, whole[row]) for row, part in rest.items())


def test_a_network_that_cannot_be_streamed_goes_in_tiles_and_the_reason_is_given() -> None:
    given = predictor("unet pad")
    way = Predictor(given.runtime, given.labels, memory_bytes=1).plan_way(171, 190)
    assert way.kind == "tiles"
    assert "no bands: join (Join) cannot be computed in bands" in way.because
    with pytest.raises(OptionError, match="cannot be computed in bands"):
        Predictor(given.runtime, given.labels, memory_bytes=1, way="bands").plan_way(171, 190)


def test_tiles_of_a_network_that_sees_the_whole_image_are_blended() -> None:
    whole = predictor("unet group")
    tiled = Predictor(whole.runtime, whole.labels, memory_bytes=1)
    pixels = image(1, 171, 190)
    assert whole.plan_way(171, 190).exact
    way = tiled.plan_way(171, 190)
    assert (way.kind, way.exact) == ("blended tiles", False)
    want, got = logits(whole, pixels), logits(tiled, pixels)
    assert np.isfinite(got).all()
    assert 1e-4 < np.abs(got - want).max() / np.abs(want).max() < 0.5
    steps = np.abs(np.diff(got - want, axis=2))
    seams = [tile.read[1].start - 1 for tile in cover((171, 190), way.window, way.halo, (4, 4)) if tile.read[1].start]
    assert steps[..., seams].mean() < 2 * steps.mean()
    assert np.array_equal(tiled.indices(pixels), got.argmax(0))
    assert tiled.probabilities(pixels[0]) == pytest.approx(torch.from_numpy(got).softmax(0).numpy(), abs=1e-6)
    one = Predictor(whole.runtime, whole.labels, memory_bytes=2**33, way="tiles")
    assert (one.plan_way(171, 190).kind, one.plan_way(171, 190).tiles) == ("blended tiles", 1)
    assert np.array_equal(logits(one, pixels), want)


@given(height=st.integers(1, 130), width=st.integers(1, 130), memory=st.integers(1, 2_000_000))
@settings(max_examples=25, deadline=None)
def test_any_size_and_memory_give_the_same_logits(height, width, memory) -> None:
    whole = WHOLE
    tiled = Predictor(whole.runtime, whole.labels, memory_bytes=memory)
    pixels = image(1, height, width)
    want, got = logits(whole, pixels), logits(tiled, pixels)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


WHOLE = predictor("unet")


def test_a_smaller_context_than_the_reach_would_be_seen() -> None:
    whole = predictor("unet")
    tiled = Predictor(whole.runtime, whole.labels, memory_bytes=1)
    assert tiled._limits.reach == whole.runtime.reach
    object.__setattr__(tiled._limits, "reach", (whole.runtime.reach[0] - whole.runtime.stride, whole.runtime.reach[1]))
    pixels = image(1, 171, 190)
    assert np.abs(logits(tiled, pixels) - logits(whole, pixels)).max() > 1e-5 * np.abs(logits(whole, pixels)).max()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (7, 5), (1, 3000), (3000, 1), (64, 64)])
@pytest.mark.parametrize("memory", [1, 2**33])
def test_labels_have_the_size_of_the_image_and_the_values_of_the_masks(size, memory) -> None:
    predict = predictor(memory=memory)
    pixels = image(*size)
    values = predict(pixels)
    assert values.shape == size
    assert values.dtype == np.uint8
    assert set(np.unique(values)) <= {0, 7, 255}
    probabilities = predict.probabilities(pixels)
    assert probabilities.shape == (3, *size)
    assert probabilities.sum(0) == pytest.approx(np.ones(size), abs=1e-5)
    assert np.array_equal(predict.labels.decode(probabilities.argmax(0)), values)
    assert np.array_equal(predict.indices(pixels[np.newaxis]), probabilities.argmax(0))


def test_values_above_255_come_as_16_bits() -> None:
    predict = Predictor(runtime("unet"), labels(0, 1, 1000), memory_bytes=2**33)
    assert predict(image(20, 20)).dtype == np.uint16


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_equal_values_of_other_types_give_equal_labels(dtype) -> None:
    predict = predictor(channels=3)
    assert np.array_equal(predict(image(30, 40, 3)), predict(image(30, 40, 3, dtype=dtype)))


def test_the_image_is_left_as_it_was() -> None:
    pixels = image(40, 50, 3, dtype="float32")
    before = pixels.copy()
    pixels.setflags(write=False)
    predictor(channels=3)(pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (image(20, 20), "1 channel.*\n.*1 channel\n.*3 channels"),
        (image(20, 20, 4), "4 channels"),
        (image(3, 20, 20), "20 channels"),
        (image(0, 20, 3), "no image"),
        (image(20), r"shape \(20,\)"),
        (image(20, 20, 3, dtype="int32"), "int32"),
        (image(20, 20, 3, dtype="bool"), "bool"),
    ],
)
def test_images_of_another_kind_are_refused(pixels, message) -> None:
    with pytest.raises(DataError, match=message):
        predictor(channels=3)(pixels)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(bad) -> None:
    pixels = image(20, 20, dtype="float32")
    pixels[3, 4] = bad
    with pytest.raises(DataError, match="in 1 of 400 values"):
        predictor()(pixels)


def test_another_type_than_in_training_is_refused_where_it_is_known() -> None:
    predict = predictor(dtype="uint8")
    assert predict(image(9, 9)).shape == (9, 9)
    with pytest.raises(DataError, match=r"uint16(.|\n)*uint8"):
        predict(image(9, 9, dtype="uint16"))


def test_as_many_labels_as_classes() -> None:
    with pytest.raises(ValueError, match="2 labels for a network of 3"):
        Predictor(runtime("unet"), labels(0, 1))


def test_a_quarter_of_the_free_memory_is_the_default(monkeypatch) -> None:
    of = runtime("unet")
    monkeypatch.setattr(of, "free_memory", lambda: 4_000_000)
    assert Predictor(of, labels(0, 1, 2))._limits.memory_bytes == 1_000_000


class Source:
    """An image in memory that counts what is read of it."""

    path = Path("folder/image.tif")
    nodata, geometry = None, Geometry()

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.shape, self.dtype, self.largest = pixels, pixels.shape, pixels.dtype, 0

    def read(self, window=None) -> np.ndarray:
        part = self.pixels[(slice(None), *window)]
        self.largest = max(self.largest, part[0].size)
        return part


class Sink:
    def __init__(self, *shape: int) -> None:
        self.written, self.values = np.zeros(shape[-2:], int), np.zeros(shape)

    def write(self, window, values) -> None:
        self.written[window] += 1
        self.values[(..., *window)] = values


class Steps:
    def __init__(self) -> None:
        self.done = 0.0

    def advance(self, done: float = 1, **figures) -> None:
        self.done += done


def test_from_source_to_sink_by_windows() -> None:
    tiled = predictor(memory=1)
    source, sink, values, steps = Source(image(1, 300, 260)), Sink(300, 260), Sink(3, 300, 260), Steps()
    way = tiled.predict(source, sink, probabilities=values, tracker=steps)
    assert way.tiles > 1
    assert source.largest <= way.window[0] * way.window[1] < 300 * 260
    assert (sink.written == 1).all()
    assert (values.written == 1).all()
    assert np.array_equal(sink.values, tiled(source.pixels[0]))
    assert values.values == pytest.approx(tiled.probabilities(source.pixels[0]))
    assert steps.done == pytest.approx(300 * 260 / 1e6)


def test_messages_name_the_file() -> None:
    with pytest.raises(DataError, match=r"folder/image\.tif has 2 channels"):
        predictor().predict(Source(image(2, 30, 30)), Sink(30, 30))


@pytest.mark.parametrize(("kind", "way"), [("unet", "bands"), ("unet", "tiles"), ("unet group", "tiles")])
def test_the_next_part_is_read_while_one_is_computed(kind, way) -> None:
    of, pixels = predictor(kind, memory=400_000, way=way), image(1, 400, 90)
    threads: list[str] = []

    def read(window):
        threads.append(threading.current_thread().name.split("_")[0])
        return pixels[(slice(None), *window)]

    assert len(list(of._parts(read, pixels.shape, "labels", "x"))) > 1
    assert len(threads) > 2
    assert set(threads[1:]) == {"keepmap-ahead"}
