"""Batch normalisation with fixed statistics as part of the convolution before it.

Knows the steps of a network's core; changes no value that the network computes, up to rounding.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from keepmap.networks.network import Network
from keepmap.networks.reach import CONVS, NORMS
from keepmap.networks.trace import steps_of


def fold_batch_norms(network: Network) -> Network:
    """Fold, in place, each batch norm that alone reads a convolution into it; returns the same network.

    The batch norm becomes an identity, which saves one pass over the memory. Modules that are used twice, and those
    whose result something else reads too, stay as they are. network: in eval mode, float32.
    """
    steps = steps_of(network)
    names = {module: name for name, module in network.named_modules()}
    layers = [step.layer for step in steps]
    reads = [position for step in steps for position in step.inputs]
    for step in steps:
        norm = step.layer
        if norm is None or reads.count(step.inputs[0]) > 1:
            continue
        conv = layers[step.inputs[0]]
        if conv is not None and layers.count(conv) == layers.count(norm) == 1 and _fold(conv, norm):
            network.set_submodule(names[norm], nn.Identity())
    return network


def _fold(conv: nn.Module, norm: nn.Module) -> bool:
    """Make `conv` compute norm(conv(x)); False, and nothing done, where the two are of another kind."""
    if not isinstance(conv, CONVS) or not isinstance(norm, NORMS):
        return False
    if norm.running_mean is None or norm.running_var is None:
        return False
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return True
