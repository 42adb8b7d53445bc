"""The core of a network as a flat list of steps, by tracing it once without data.

Knows that a core is made of modules, concatenation and addition, and that a Product may take a parameter for a factor;
not what the modules do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn

from keepmap.networks.layers import Product

Kind = Literal["input", "layer", "cat", "add"]


@dataclass(frozen=True)
class Step:
    """One value of a core: the input, the output of a layer, a concatenation over channels or a sum.

    inputs: positions of the steps that it takes.
    scopes: the calls of modules that it happens in, outermost first, the layer's own included.
    listed: the call that returns it in a list, and so holds it to its end; "" where there is none.
    part:   number of the part that it belongs to (see `recompute`), from 1; 0 for none.
    """

    name: str
    kind: Kind
    layer: nn.Module | None
    inputs: tuple[int, ...]
    scopes: tuple[str, ...]
    listed: str
    part: int


class _CoreTracer(fx.Tracer):
    """Traces `core` instead of `forward`, down to the modules that contain no others."""

    traced_func_name = "core"

    def __init__(self) -> None:
        super().__init__()
        self.parts = self.part = 0

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        returned = super().call_module(m, forward, args, kwargs)
        if isinstance(returned, list):
            for proxy in returned:
                proxy.node.meta["listed"] = self.path_of_module(m)
        return returned

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["part"] = self.part
        return node


def is_traced(value: object) -> bool:
    """Whether `value` stands for a tensor in a trace."""
    return isinstance(value, fx.Proxy)


def in_part(part: Callable[[list[Any]], Any], values: list[Any]) -> Any:
    """What `part` makes of `values`, proxies of a trace; all that it does there becomes steps of one part."""
    tracer = values[0].tracer
    if not isinstance(tracer, _CoreTracer):
        return part(values)
    tracer.parts += 1
    tracer.part = tracer.parts
    returned = part(values)
    tracer.part = 0
    return returned


def steps_of(network: nn.Module) -> list[Step]:
    """The steps of `network.core` in order of execution, the logits last. TypeError where it holds anything else."""
    graph = _CoreTracer().trace(network)
    modules = dict(network.named_modules())
    steps: list[Step] = []
    position: dict[fx.Node, int] = {}
    constants: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "output":
            continue
        if node.op == "get_attr" or (node.all_input_nodes and constants.issuperset(node.all_input_nodes)):
            constants.add(node)
            continue
        kind, sources = _read(node)
        layer = modules[str(node.target)] if kind == "layer" else None
        values = [source for source in sources if source not in constants]
        if len(values) < len(sources) and not isinstance(layer, Product):
            raise TypeError(f"{node.name} takes a parameter as a value; only a Product may")
        scopes = tuple(node.meta.get("nn_module_stack", {}))
        listed = node.meta.get("listed", "")
        position[node] = len(steps)
        inputs = tuple(position[source] for source in values)
        steps.append(Step(node.name, kind, layer, inputs, scopes, listed, node.meta["part"]))
    return steps


def _read(node: fx.Node) -> tuple[Kind, list[fx.Node]]:
    """The kind of a node and the nodes that it takes."""
    if node.op == "placeholder":
        return "input", []
    if node.op == "call_module":
        return "layer", node.all_input_nodes
    dimension = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if node.target is torch.cat and dimension == 1:
        return "cat", list(node.args[0])  # type: ignore[arg-type]
    if node.target is operator.add and all(isinstance(term, fx.Node) for term in node.args):
        return "add", list(node.args)  # type: ignore[arg-type]
    raise TypeError(f"a core is modules, concatenation over channels and addition; {node.name} is {node.target}")
