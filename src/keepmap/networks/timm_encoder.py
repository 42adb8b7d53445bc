"""timm's `features_only` networks as encoders: their layers, wired anew with no functions between them.

Knows the layers that convolutional networks are made of and refuses a network with any other by that layer's name: what
it does to a part of an image would be a guess. Fetches no weights. timm is an optional package.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn

from keepmap import external
from keepmap.errors import MissingPackage, OptionError, first_few
from keepmap.networks.channelwise import ChannelLinear, ChannelNorm
from keepmap.networks.layers import (
    ACTIVATION,
    AVERAGE,
    CONV,
    GLOBAL_AVERAGE,
    PAD,
    POOL,
    SMOOTH,
    DepthwiseConv,
    Encoder,
    Product,
    Upsample,
)
from keepmap.networks.norms import NORM, GroupNorm
from keepmap.networks.recompute import in_turn, recomputed

PREFIX = "timm:"
_ACTIVATIONS = (*ACTIVATION.values(), *SMOOTH.values(), nn.Sigmoid, nn.Hardsigmoid, nn.Hardswish)
_ANY_LAYOUT = (*_ACTIVATIONS, nn.Identity, nn.Dropout)
_AS_THEY_ARE = (*_ANY_LAYOUT, NORM[2], POOL[2], AVERAGE[2], PAD[2])
_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Orders of axes by which a network moves its channels to the end, and back."""
_FEWEST_MAPS = 3


class TimmEncoder(Encoder):
    """The convolutional part of a network of timm: (N, C, *S) -> a feature map for each stride from 2 or 4 up.

    Layers, parameters and their names are those of timm's `create_model(name, features_only=True)`, under `net`; what
    it computes between layers with functions is computed by modules. A map at stride 1 is left out.
    Raises MissingPackage, and OptionError where timm has no such network or the network holds what is not known here.
    Source: Wightman 2019 (PyTorch Image Models).
    """

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        timm = load_timm()
        check_name(name)
        try:
            network = timm.create_model(name, features_only=True, pretrained=False, in_chans=channels)
        except Exception as error:
            raise _refused(name, [f"timm: {error}"]) from error
        if any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()):
            raise _refused(name, ["features that hooks collect while it computes"])
        self.strides = _strides(name, network.feature_info.reduction())
        self.net = _rewired(name, network.eval(), timm, len(self.strides))
        self.widths = _widths(name, self.net, channels, self.strides)
        self.net.train()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps, the shallow first."""
        features: list[Tensor] = recomputed(self, in_turn(self.net), [x])
        return features

    def from_timm(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of timm's own network under the names of this encoder.

        state: of the classifier or of its `features_only` network; what an encoder does not have is left out.
        Raises ValueError naming a tensor that is missing.
        """
        converted = {}
        for own in self.state_dict():
            names = _names_in_timm(own.removeprefix("net."))
            source = next((name for name in names if name in state), None)
            if source is None:
                raise ValueError(f"these are not the weights of this network: {names[0]} is missing")
            converted[own] = state[source]
        return converted


def load_timm() -> ModuleType:
    """The package. Raises MissingPackage where it is not installed, and where it cannot be imported."""
    try:
        return external.load("timm", "an encoder of timm")
    except (ImportError, RuntimeError) as error:
        raise MissingPackage(
            "timm is installed and cannot be imported: it needs torchvision, of the same build as torch.",
            found=next(iter(str(error).splitlines()), type(error).__name__),
            expected=f"the torchvision that belongs to torch {torch.__version__}",
            do="install torch and torchvision together from one source (both for the CPU, or both for CUDA)",
        ) from error


def check_name(name: str) -> None:
    """Raises OptionError with the nearest names unless timm has a network `name`, MissingPackage without timm."""
    names = load_timm().list_models()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        raise OptionError(
            f"There is no encoder {PREFIX}{name}.",
            found=name,
            expected=f"did you mean {' or '.join(close)}?" if close else "a name that timm.list_models() gives",
        )


class _LayerTracer(fx.Tracer):
    """Traces a network of timm down to its layers. layers: by path, what stands for each; last: those on channels last.

    A layer that is not known is traced without what stands for it.
    """

    def __init__(self, timm: ModuleType) -> None:
        super().__init__()
        self.timm = timm
        self.layers: dict[str, nn.Module] = {}
        self.last: set[str] = set()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return False

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        own = self.timm.layers
        transparent = type(m) in (own.LayerScale2d, own.DropPath, nn.Sequential)
        if type(m) is not own.BatchNormAct2d and (transparent or any(True for _ in m.children())):
            return super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        result = self._call(path, m, args, kwargs)
        if type(m) is own.BatchNormAct2d:
            for name, each in m.named_children():
                result = self._call(f"{path}_{name}", each, (result,), {})
        return result

    def _call(self, path: str, layer: nn.Module, args: Any, kwargs: Any) -> fx.Proxy:
        known = _known(layer, self.timm)
        if known is not None:
            self.layers[path] = known
        if type(layer) in (nn.LayerNorm, self.timm.layers.LayerNorm, nn.Linear):
            self.last.add(path)
        return self.create_proxy("call_module", path, args, kwargs, name=None, type_expr=type(layer))


def _known(layer: Any, timm: ModuleType) -> nn.Module | None:
    """The layer of keepmap that computes what `layer` does with the same parameters; None where there is none."""
    kind, own = type(layer), timm.layers
    made: nn.Module | None = layer if kind in _AS_THEY_ARE else None
    if kind is CONV[2] and not isinstance(layer.padding, str) and layer.padding_mode == "zeros":
        made = _convolution(layer)
    elif kind is own.BatchNormAct2d:
        made = NORM[2](layer.num_features, layer.eps, layer.momentum, track_running_stats=layer.track_running_stats)
    elif kind in (nn.LayerNorm, own.LayerNorm, own.LayerNorm2d) and len(layer.normalized_shape) == 1:
        made = ChannelNorm(layer.normalized_shape[0], layer.eps)
    elif kind in (nn.GroupNorm, own.GroupNorm1):
        made = GroupNorm(layer.num_groups, layer.num_channels, layer.eps)
    elif kind is nn.Linear:
        made = ChannelLinear(layer.in_features, layer.out_features)
    elif kind is own.GELU:
        made = SMOOTH["gelu"]()
    elif kind is own.Sigmoid:
        made = nn.Sigmoid()
    elif kind is nn.Upsample and layer.mode == "nearest" and layer.size is None and layer.scale_factor % 1 == 0:
        made = Upsample(int(layer.scale_factor), nearest=True)
    elif kind is GLOBAL_AVERAGE[2] and layer.output_size in (1, (1, 1)):
        made = GLOBAL_AVERAGE[2](1)
    if made is not None and made is not layer:
        made._parameters, made._buffers = layer._parameters, layer._buffers
    return made


def _convolution(layer: Any) -> nn.Module:
    """The convolution, as a depthwise one of keepmap where it is one."""
    plain = layer.groups == layer.in_channels == layer.out_channels > 1 and layer.bias is None
    square = all(len(set(getattr(layer, key))) == 1 for key in ("kernel_size", "stride", "padding", "dilation"))
    if not (plain and square and layer.dilation[0] == 1):
        return layer  # type: ignore[no-any-return]
    return DepthwiseConv(layer.in_channels, layer.kernel_size[0], stride=layer.stride[0], padding=layer.padding[0])


def _rewired(name: str, network: nn.Module, timm: ModuleType, maps: int) -> fx.GraphModule:
    """The layers of the last maps, called in the same order, each function between them replaced. OptionError."""
    tracer = _LayerTracer(timm)
    try:
        graph = tracer.trace(network)
    except Exception as error:
        raise _refused(name, [f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"]) from error
    rewiring = _Rewiring(graph, tracer, network)
    unknown = [what for node in list(graph.nodes) if (what := rewiring.replace(node))]
    if unknown:
        raise _refused(name, unknown)
    graph.output_node().args = (list(graph.output_node().args[0])[-maps:],)  # type: ignore[arg-type]
    net = fx.GraphModule({**tracer.layers, **rewiring.constants}, graph, "TimmLayers")
    net.graph.eliminate_dead_code()
    net.delete_all_unused_submodules()
    net.recompile()
    return net


class _Rewiring:
    """Replaces, node by node, what is no layer. constants: parameters that are used as such, by path."""

    def __init__(self, graph: fx.Graph, tracer: _LayerTracer, network: nn.Module) -> None:
        self.graph = graph
        self.layers = tracer.layers
        self.needs_last = tracer.last
        self.network = network
        self.constants: dict[str, Any] = {}
        self.values: dict[fx.Node, Tensor] = {}
        self.last: set[fx.Node] = set()

    def replace(self, node: fx.Node) -> str:
        """Nothing where the node is a layer, or is one now; else what it is, in words."""
        sources = [source for source in node.all_input_nodes if source not in self.values]
        last = [source in self.last for source in sources]
        if node.op == "placeholder":
            return ""
        if node.op == "output":
            return "features with channels last" if any(last) else ""
        if node.op == "get_attr":
            self.constants[str(node.target)] = self.values[node] = operator.attrgetter(str(node.target))(self.network)
            return ""
        if node.op == "call_module":
            return self._layer(node, any(last))
        if not sources and node.all_input_nodes:
            self.values[node] = self._constant(node)
            return ""
        new = self._function(node, sources) if len(set(last)) == 1 else None
        if new is None:
            return f"{_place(node)}{getattr(node.target, '__name__', node.target)}"
        node.replace_all_uses_with(new)
        self.graph.erase_node(node)
        return ""

    def _layer(self, node: fx.Node, last: bool) -> str:
        path = str(node.target)
        layer = self.layers.get(path)
        if layer is None or (last != (path in self.needs_last) and type(layer) not in _ANY_LAYOUT):
            return f"{path} ({getattr(node.type, '__name__', node.type)})"
        node.type = None
        if last:
            self.last.add(node)
        return ""

    def _constant(self, node: fx.Node) -> Tensor:
        """The value of a node that is computed from parameters alone."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: self.values[source])
        value: Tensor = (
            getattr(args[0], str(node.target))(*args[1:], **kwargs)
            if node.op == "call_method"
            else node.target(*args, **kwargs)  # type: ignore[operator]
        )
        return value

    def _function(self, node: fx.Node, sources: list[fx.Node]) -> fx.Node | None:
        """The node that computes the same from the same sources, None where there is none."""
        kind = str(getattr(node.target, "__name__", node.target)).strip("_")
        first, *others = sources
        if kind == "permute":
            return self._moved(node, first)
        numbers: list[Any] = [value for value in node.args if isinstance(value, int | float)]
        if kind in ("add", "iadd") and len(node.args) == len(sources) == 2 and not node.kwargs:
            return self._joined(node, operator.add, (first, *others), sources)
        if first in self.last:
            return None
        if kind in ("cat", "concat") and (numbers or [node.kwargs.get("dim")]) == [1]:
            return self._joined(node, torch.cat, (list(node.args[0]), 1), sources)  # type: ignore[arg-type]
        if kind in ("mul", "imul") and len(node.args) == 2 and not numbers and self._is_per_channel(node):
            return self._called(node, Product(), tuple(node.args))
        if kind == "mean" and self._is_global_mean(node):
            return self._called(node, GLOBAL_AVERAGE[2](1), (first,))
        return None

    def _moved(self, node: fx.Node, source: fx.Node) -> fx.Node | None:
        """The source itself: only the note of where its channels are changes."""
        axes = node.args[1] if isinstance(node.args[1], list | tuple) else node.args[1:]
        if tuple(axes) != (_FIRST if source in self.last else _LAST):
            return None
        with self.graph.inserting_before(node):
            new = self.graph.call_module(self._added(node, nn.Identity()), (source,))
        if source not in self.last:
            self.last.add(new)
        return new

    def _joined(self, node: fx.Node, function: Any, args: tuple[Any, ...], sources: list[fx.Node]) -> fx.Node:
        with self.graph.inserting_before(node):
            new = self.graph.call_function(function, args)
        if sources[0] in self.last:
            self.last.add(new)
        return new

    def _called(self, node: fx.Node, layer: nn.Module, args: tuple[Any, ...]) -> fx.Node:
        with self.graph.inserting_before(node):
            return self.graph.call_module(self._added(node, layer), args)

    def _added(self, node: fx.Node, layer: nn.Module) -> str:
        path = f"between.{node.name}"
        self.layers[path] = layer
        return path

    def _is_per_channel(self, node: fx.Node) -> bool:
        """Whether every factor that is a parameter is one number for each channel."""
        shapes = [self.values[source].shape for source in node.all_input_nodes if source in self.values]
        return all(len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1 for shape in shapes)

    def _is_global_mean(self, node: fx.Node) -> bool:
        """Whether a mean is that of each channel over all pixels, kept as one pixel."""
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        kept = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
        return isinstance(axes, list | tuple) and {axis % 4 for axis in axes} == {2, 3} and kept is True


def _strides(name: str, declared: Sequence[int]) -> tuple[int, ...]:
    """Those above 1. Raises OptionError unless there are enough, each twice the one before, from a power of 2 on."""
    kept = tuple(stride for stride in declared if stride > 1)
    doubling = all(after == 2 * before for before, after in pairwise(kept))
    if len(kept) < _FEWEST_MAPS or not doubling or kept[0] & (kept[0] - 1) or tuple(declared[-len(kept) :]) != kept:
        raise _refused(name, [f"feature maps of stride {', '.join(map(str, declared))}"])
    return kept


def _widths(name: str, net: fx.GraphModule, channels: int, strides: tuple[int, ...]) -> tuple[int, ...]:
    """The channels of the maps. Raises OptionError where images of whole strides do not become maps of whole rows."""
    state = {key: value.to("meta") for key, value in net.state_dict().items()}
    widths: tuple[int, ...] = ()
    for count in (2, 3):
        side = count * strides[-1]
        image = torch.zeros(1, channels, side, side, device="meta")
        try:
            maps = torch.func.functional_call(net, state, (image,))
        except RuntimeError as error:
            raise _refused(name, [next(iter(str(error).splitlines()))]) from error
        if [each.shape[2] * stride for each, stride in zip(maps, strides, strict=True)] != [side] * len(strides):
            raise _refused(name, [f"maps of {', '.join(str(each.shape[2]) for each in maps)} rows of {side}"])
        widths = tuple(each.shape[1] for each in maps)
    return widths


def _names_in_timm(name: str) -> list[str]:
    """What a parameter of a `features_only` network may be called in timm: as here, or as in the classifier."""
    head, _, rest = name.partition(".")
    stage, _, index = head.rpartition("_")
    return [name, name.removeprefix("model."), f"{stage}.{index}.{rest}"]


def _place(node: fx.Node) -> str:
    """The module that a function is called in, for a message."""
    return next((f"{path}: " for path, _ in reversed(node.meta.get("nn_module_stack", {}).values()) if path), "")


def _refused(name: str, found: list[str]) -> OptionError:
    return OptionError(
        f"{PREFIX}{name} cannot be an encoder here.",
        found=first_few(list(dict.fromkeys(found))),
        expected="convolutions padded by fixed numbers of pixels, batch, layer or group norms, poolings, "
        "squeeze-excitation, and maps each at twice the stride of the one before",
        do=f"choose a convolutional network, such as {PREFIX}resnet50, {PREFIX}convnext_tiny, {PREFIX}efficientnet_b0",
    )
