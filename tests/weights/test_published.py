"""The table of published weights against torchvision's own, and against what its file names carry."""

from __future__ import annotations

import pytest

from keepmap import external
from keepmap.networks.encoders import ENCODERS
from keepmap.weights.published import IMAGENET, SEGMENTATION, Published
from keepmap.weights.sources import SOURCES


def test_every_encoder_has_an_entry() -> None:
    assert set(IMAGENET) == set(ENCODERS)
    assert set(SEGMENTATION) <= set(SOURCES)


@pytest.mark.parametrize("name", [*IMAGENET, *SEGMENTATION])
def test_addresses_and_normalisation_are_torchvisions(name: str, peers: None) -> None:
    from torchvision.models import get_model_weights

    published = {**IMAGENET, **SEGMENTATION}[name]
    if published.package:
        assert published.package in external.PACKAGES
        return
    weights = get_model_weights(name.removeprefix("torchvision:"))
    theirs = getattr(weights, "IMAGENET1K_V1", None) or weights.COCO_WITH_VOC_LABELS_V1
    preset = theirs.transforms()
    assert published.address == theirs.url
    assert len(published.hash) == 8
    assert published.mean == pytest.approx([255 * value for value in preset.mean])
    assert published.std == pytest.approx([255 * value for value in preset.std])
    assert not published.fetched
    assert "torchvision" in published.licence and ("COCO" in published.licence) == (name in SEGMENTATION)


def test_the_hash_is_read_off_the_name() -> None:
    assert Published("http://a/b/resnet18-f37072fd.pth", "x").hash == "f37072fd"
    assert Published("http://a/b/fcn_resnet50_coco-1167a1af.pth", "x").hash == "1167a1af"
    assert Published("http://a/b/net.pth", "x").hash == ""
    assert Published("http://a/b/net-v2.pth", "x").file == "net-v2.pth"
