"""The manifest comes back as it went in, and what is none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepmap.errors import ArtefactError
from keepmap.runtime.manifest import Manifest, manifest_from

WHERE = Path("model.onnx")


def test_comes_back_whole_and_in_ascii(manifest: Manifest) -> None:
    assert manifest.text().isascii()
    assert manifest_from(manifest.text(), WHERE) == manifest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "was not exported by keepmap"),
        ("{", "broken metadata"),
        ("[]", "broken metadata"),
        ('{"format": 3}', "another version of keepmap"),
        ('{"format": 2, "chanels": 3}', "did you mean channels"),
    ],
)
def test_what_is_none_is_named(text: str | None, said: str) -> None:
    with pytest.raises(ArtefactError) as caught:
        manifest_from(text, WHERE)
    assert said in str(caught.value)
    assert "model.onnx" in str(caught.value)


@pytest.mark.parametrize(("size", "padded"), [((1, 1), 64), ((8, 9), 8 * 12), ((13, 8), 16 * 8)])
def test_memory_follows_the_size_rule(size: tuple[int, int], padded: int, manifest: Manifest) -> None:
    assert manifest.peak_bytes(*size) == 40 * padded
