"""Networks of other libraries by name: which of ours each is, with which options, and how its tensors are called.

Reads no file and writes none. What a state dict tells by its shapes (channels, classes, widths) is read off it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from keepmap.networks.resnet import RESNETS
from keepmap.weights.published import IMAGENET

State = Mapping[str, Tensor]

VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 21 classes of PASCAL VOC in the order of its labels."""


@dataclass(frozen=True)
class Recipe:
    """What `build_network` needs. classes: scores in the file; one stands for a foreground that a sigmoid decides."""

    network: str
    channels: int
    classes: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Source:
    """One network of another library.

    recipe: reads the numbers of the network off a state dict; names that are missing count as in the original.
    theirs: our name of a tensor -> theirs.
    scores: the beginnings of their names of the layers that score classes.
    turned: (our name, their tensor, recipe) -> our tensor, where more than the name differs.
    names:  of the classes, where there are as many.
    mean, std: what images were normalised with, in raw 8-bit values; one number stands for every channel.
    """

    recipe: Callable[[State], Recipe]
    theirs: Callable[[str], str]
    scores: tuple[str, ...]
    turned: Callable[[str, Tensor, Recipe], Tensor] = lambda name, tensor, recipe: tensor
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET["resnet18"].mean
    std: tuple[float, ...] = IMAGENET["resnet18"].std


def without_biases(state: State) -> dict[str, Tensor]:
    """The same network without a bias in front of a batch norm: the norm's running mean takes it over, exactly.

    Older files of milesial's U-Net have such biases; in eval the norm subtracts what the bias added.
    """
    plain = dict(state)
    for name in state:
        found = re.fullmatch(r"(.*double_conv\.)([03])\.bias", name)
        mean = f"{found[1]}{int(found[2]) + 1}.running_mean" if found else ""
        if mean in state:
            plain[mean] = state[mean] - plain.pop(name)
    return plain


def _size(state: State, name: str, axis: int, default: int) -> int:
    """The extent of an axis of a tensor, or what the original has where there is none of that name."""
    return state[name].shape[axis] if name in state and state[name].ndim > axis else default


def _torchvision(encoder: str, state: State) -> Recipe:
    first, scores = "backbone.conv1.weight", "classifier.4.weight"
    aux = any(name.startswith("aux_classifier.") for name in state)
    options = {"encoder": encoder, "aux": aux, "match": "resize", "width": _size(state, first, 0, 64)}
    return Recipe("fcn_dilated", _size(state, first, 1, 3), _size(state, scores, 0, len(VOC)), options)


def _torchvision_name(name: str) -> str:
    part, rest = name.split(".", 1)
    return f"{ {'encoder': 'backbone', 'head': 'classifier', 'aux': 'aux_classifier'}[part] }.{rest}"


def _milesial(state: State) -> Recipe:
    """Four levels below the first. With learnt upsampling the channels double to the end; bilinear ones are halved."""
    first = "inc.double_conv.0.weight"
    widths = [_size(state, first, 0, 64)]
    for level in range(1, 5):
        widths.append(_size(state, f"down{level}.maxpool_conv.1.double_conv.3.weight", 0, 2 * widths[-1]))
    up = "aligned" if "inc.double_conv.0.weight" in state and "up1.up.weight" not in state else "transposed"
    options = {"widths": tuple(widths), "match": "pad", "up": up}
    return Recipe("unet", _size(state, first, 1, 3), _size(state, "outc.conv.weight", 0, 2), options)


def _milesial_name(name: str) -> str:
    part, *rest = name.split(".")
    if part == "head":
        return f"outc.conv.{rest[0]}"
    if part == "up":
        return f"up{int(rest[0]) + 1}.up.{rest[1]}"
    *level, index, layer, tensor = rest
    number = int(level[0]) + 1 if level else 0
    where = {"stem": "inc", "down": f"down{number}.maxpool_conv.1", "merge": f"up{number}.conv"}[part]
    return f"{where}.double_conv.{3 * int(index) + (layer == 'norm')}.{tensor}"


def _smp(encoder: str, state: State) -> Recipe:
    widths = [_size(state, f"decoder.blocks.{level}.conv1.0.weight", 0, 256 >> level) for level in range(5)]
    options = {
        "encoder": encoder, "widths": tuple(widths), "stem_skip": False, "up": "nearest", "narrow": False,
        "match": "resize", "head_kernel": 3,
    }  # fmt: skip
    channels, classes = _size(state, "encoder.conv1.weight", 1, 3), _size(state, "segmentation_head.0.weight", 0, 1)
    return Recipe("encoder_unet", channels, classes, options)


def _smp_name(name: str) -> str:
    merge = re.fullmatch(r"merge\.(\d+)\.(\d)\.(conv|norm)\.(\w+)", name)
    if merge:
        level, index, layer, tensor = merge.groups()
        return f"decoder.blocks.{level}.conv{int(index) + 1}.{int(layer == 'norm')}.{tensor}"
    return name.replace("head.", "segmentation_head.0.") if name.startswith("head.") else name


def _smp_turned(name: str, tensor: Tensor, recipe: Recipe) -> Tensor:
    """Their concatenation has the map before the skip, ours the skip before the map."""
    merge = re.fullmatch(r"merge\.(\d+)\.0\.conv\.weight", name)
    if not merge:
        return tensor
    level, widths = int(merge[1]), recipe.options["widths"]
    block, _ = RESNETS[recipe.options["encoder"]]
    lifted = widths[level - 1] if level else 512 * block.expansion
    return torch.cat([tensor[:, lifted:], tensor[:, :lifted]], 1)


SOURCES: dict[str, Source] = {
    **{
        f"torchvision:fcn_{encoder}": Source(
            partial(_torchvision, encoder), _torchvision_name, ("classifier.4.", "aux_classifier.4."), names=VOC
        )
        for encoder in ("resnet50", "resnet101")
    },
    "milesial:unet": Source(_milesial, _milesial_name, ("outc.conv.",), mean=(0.0,), std=(255.0,)),
    **{
        f"smp:unet-{encoder}": Source(partial(_smp, encoder), _smp_name, ("segmentation_head.0.",), turned=_smp_turned)
        for encoder in RESNETS
    },
}
"""What `import-weights --as` takes.

torchvision: Long et al.'s idea over a dilated ResNet; of torchvision 0.13 and later, which normalises as ImageNet.
milesial:    the most copied U-Net, both forms, which divides by 255.
smp:         segmentation_models.pytorch 0.6, Unet over a ResNet, default options; its encoders expect ImageNet's
             normalisation. Its VGG encoders take their features before pooling and ours after, so they are no source.
"""
