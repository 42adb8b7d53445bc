"""What an exported network carries with it, so that its file alone predicts.

Knows names, numbers and JSON; neither file formats nor what computes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from keepmap.config import from_dict, to_dict
from keepmap.data.labels import LabelSet
from keepmap.errors import ArtefactError
from keepmap.geometry.tiles import round_up

KEY = "keepmap"
"""Under which the manifest lies in the metadata of a file."""
FORMAT = 2


@dataclass(frozen=True)
class Manifest:
    """The facts of an exported network. Its graph maps `image` (N, C, H, W) float32, raw values, to `logits`.

    channels, order:  how many, and which: "grey", "RGB" or "as in the files". dtype: of the training images' values.
    mean:             the raw value (C,) that the network normalises to zero.
    stride, reach, local: as of the network, in pixels. margin: pixels that it pads beyond the size rule's multiple.
    pixel_bytes:      what a float32 pass is computed to take at its peak, for each padded pixel.
    precision:        of the weights and the arithmetic in the file. kept: layers that int8 left in floats.
    network, options, weights: its name in the catalogue, and the sha256 of the run's model.safetensors.
    payload:          the sha256 of what computes: the graph of an ONNX file, the .bin of OpenVINO.
    opset, ir:        of ONNX; ir of an OpenVINO file is that of OpenVINO. versions: of the packages that wrote it.
    """

    network: str
    options: dict[str, Any]
    weights: str
    payload: str
    channels: int
    order: str
    dtype: str
    labels: LabelSet
    mean: tuple[float, ...]
    stride: int
    reach: tuple[int, int]
    local: bool
    margin: int
    pixel_bytes: float
    precision: Literal["float32", "int8"]
    kept: tuple[str, ...]
    opset: int
    ir: int
    versions: dict[str, str]

    def text(self) -> str:
        """The JSON that a file carries, plain ASCII."""
        return json.dumps({"format": FORMAT, **to_dict(self)})

    def require_payload(self, found: str, path: Path) -> None:
        """Raise ArtefactError unless `found`, the sha256 of what computes, is that of what was written into `path`."""
        if found != self.payload:
            raise ArtefactError(
                f"{path} was changed or damaged after it was written.", found=f"sha256 {found}",
                expected=f"sha256 {self.payload}", do="copy it again from its source, or export the run again",
            )  # fmt: skip

    def peak_bytes(self, height: int, width: int) -> int:
        """Bytes that a float32 pass of (height, width) pixels takes at its peak, about."""
        sides = (max(2 * self.stride, round_up(side, self.stride)) + self.margin for side in (height, width))
        return int(self.pixel_bytes * prod(sides))


def manifest_from(text: str | None, path: Path) -> Manifest:
    """What `Manifest.text` wrote into `path`. Raises ArtefactError where nothing did, or another version of keepmap."""
    if text is None:
        raise ArtefactError(
            f"{path} was not exported by keepmap.", found="no keepmap entry in its metadata",
            expected="what keepmap export wrote", do="keepmap export RUN",
        )  # fmt: skip
    try:
        values = json.loads(text)
        found = values.pop("format", None)
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{path} has broken metadata.", found=str(error), do="export the run again") from error
    if found != FORMAT:
        raise ArtefactError(
            f"{path} was exported by another version of keepmap.", found=f"format {found}",
            expected=f"format {FORMAT}", do="use that version, or export the run again",
        )  # fmt: skip
    return from_dict(Manifest, values, str(path), ArtefactError)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
