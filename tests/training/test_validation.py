"""Validation gives the numbers that predicting the images and counting by hand gives."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from keepmap.data.labels import LabelSet
from keepmap.inference.predictor import Predictor
from keepmap.metrics.tally import Tally, dealt
from keepmap.networks.catalogue import build_network
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.training.ranks import Ranks
from keepmap.training.validation import clearly_better, spread, validate

LABELS = LabelSet(values=(0, 255), names=("a", "b"), ignore=None, colours=((0, 0, 0), (255, 0, 0)))


class Drawn:
    """Two images of different size held in memory."""

    facts = (SimpleNamespace(stem="a"), SimpleNamespace(stem="b"))

    def __len__(self) -> int:
        return 2

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(index)
        size = (30 + 7 * index, 41)
        return random.integers(0, 256, (1, *size), dtype=np.uint8), random.integers(-1, 2, size).astype(np.int16)


def test_equals_counting_by_hand_and_leaves_the_network_alone() -> None:
    torch.manual_seed(0)
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]}).train()
    network.set_normalisation((100.0,), (50.0,))
    counts = validate(network, Drawn(), LABELS, device="cpu", precision="float32")  # type: ignore[arg-type]
    predictor = Predictor(TorchRuntime(network, device="cpu", precision="float32"), LABELS)
    hits = total = 0
    for index in range(2):
        image, truth = Drawn().get(index)
        predicted = predictor(image[0]) == 255
        hits += int(((truth == 1) & predicted).sum())
        total += int((((truth == 1) | predicted) & (truth >= 0)).sum())
    assert counts.matrix.scores().classes[1].iou == hits / total
    assert counts.stems == ["a", "b"]
    assert all(counts.regions)
    assert network.training


def test_fewer_images_are_spread_over_all() -> None:
    assert spread("abcdefghij", 0) == spread("abcdefghij", 10) == "abcdefghij"
    assert [list(spread("abcdefghij", count)) for count in (1, 3, 99)] == [["a"], ["a", "d", "g"], list("abcdefghij")]


def test_several_processes_count_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Tally] = []
    monkeypatch.setattr(Ranks, "gathered", lambda self, mine: told.append(mine) or [mine])
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    for ranks in (Ranks(0, 2), Ranks(1, 2), Ranks()):
        validate(network, Drawn(), LABELS, device="cpu", precision="float32", ranks=ranks)  # type: ignore[arg-type]
    one, other, whole = told
    assert (one.stems, other.stems) == (["a"], ["b"])
    assert dealt([one, other]).stems == whole.stems
    assert np.array_equal(dealt([one, other]).matrix.matrix, whole.matrix.matrix)
    assert dealt([one, other]).regions == whole.regions


def test_what_was_better_by_chance_was_not_clearly_better() -> None:
    """Of two columns of the same noise one is called clearly better in one of forty draws, never of few images."""
    random = np.random.default_rng(0)
    pairs = random.uniform(0.5, 0.9, (400, 2, 20)).tolist()
    assert 2 <= sum(clearly_better(before, now) for before, now in pairs) <= 20
    assert all(clearly_better([value + 0.3 for value in now], now) for _, now in pairs)
    assert not any(clearly_better([value + 0.3 for value in now[:7]], now[:7]) for _, now in pairs)
    assert not clearly_better([], pairs[0][0]) and not clearly_better([None] * 13 + [1.0] * 7, [0.0] * 20)
    assert clearly_better([None] * 12 + [1.0] * 8, [0.0] * 20)
