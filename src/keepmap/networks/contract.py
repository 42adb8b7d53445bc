"""What every segmentation network promises, clause by clause, each proven on a copy of the network.

Knows no network: an `nn.Module` of one's own is checked like those of keepmap. Judges neither accuracy nor speed.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import safetensors.torch
import torch
from torch import nn

from keepmap.errors import ContractError, first_few
from keepmap.networks.candidate import Candidate, Segmenter, attempt, candidate, same
from keepmap.networks.reach import INPUT_NORMS, NORMS

SIZES = ((1, 1), (1, 131), (67, 1), (2, 3), (31, 33), (64, 64), (67, 131))
"""Extents (H, W) in pixels that every network must compute; three more are drawn."""
TOLERANCE = 1e-5
"""Of the largest absolute logit, in float32: by how much a part may differ from the whole, an image from its batch."""
LAYOUT_TOLERANCE = 1e-4
"""The same where other kernels compute: in another memory layout, in a graph."""
HALF_TOLERANCE = 0.1
"""The same in bfloat16."""
GRAPH_ADVICE = "let no branch depend on values or extents; crop by index_select, as narrow asks whether it is the whole"
_NORMS = (*NORMS, *INPUT_NORMS, nn.LayerNorm)


def check_segmenter(network: Segmenter, *, seed: int = 0) -> None:
    """Prove on copies of `network` everything that keepmap takes for granted of a network.

    In eval: logits of the image's size and finite, the same twice, for each image of a batch alone, in bfloat16, in
    channels_last memory, after saving and loading, in one graph of `torch.compile` and in one of `torch.export` for
    all sizes; in train: a gradient for every trainable parameter after one step of an optimiser. What a local network
    says of its stride and reach is read off a NaN in one row, and parts must equal the whole. Of a network that is not
    local neither can be seen.

    network: an `nn.Module` with the members of Segmenter. A network that keeps the normalisation of its input in
             buffers `mean` and `std` (channels) gets values around them, any other values around 0 with deviation 1.
             Trainable parameters that are zero throughout, and statistics of norms as they begin, are drawn anew in
             the copy (but for the gradients), so that what they hide is seen.
    seed:    of all that is drawn. Neither the network nor the state of torch's generators is changed; functions that
             `torch.compile` has compiled in this process are compiled again on their next call. Where compiling
             fails, torch lets the values of later calls in this process live a little longer.

    Raises ContractError with the first clause that does not hold.
    """
    for clause in CLAUSES:
        check_clause(network, clause, seed=seed)


def check_clause(network: Segmenter, clause: str, *, seed: int = 0) -> None:
    """Prove one clause, a key of CLAUSES, as `check_segmenter` does. Raises ContractError."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        CLAUSES[clause](candidate(network))


def has_size(network: Candidate) -> None:
    """Logits (1, classes, H, W), finite, for images from 1x1 to 67x131 pixels."""
    network.prepare()
    drawn = [(int(torch.randint(1, 68, ())), int(torch.randint(1, 132, ()))) for _ in range(3)]
    for size in (*SIZES, *drawn):
        logits = network.logits(network.image(size), "size")
        if not logits.is_floating_point() or not bool(logits.isfinite().all()):
            raise ContractError(
                f"The logits of an image of {size[0]}x{size[1]} px are not finite numbers.", clause="size",
                found=f"{int((~logits.isfinite()).sum())} of {logits.numel()} values not finite, {logits.dtype}",
                expected="finite values of a floating-point dtype",
                do="look for a division by a count or a deviation that can be 0",
            )  # fmt: skip


def is_deterministic(network: Candidate) -> None:
    """The same logits twice, bit by bit, and an input that is left as it was."""
    network.prepare()
    x = network.image((37, 41))
    before = x.clone()
    first = network.logits(x, "determinism")
    do = "do nothing in place before the first layer"
    same(x, before, "determinism", "The network overwrites its input.", do=do)
    second = network.logits(x, "determinism")
    summary = "In eval the same image gets other logits the second time."
    same(first, second, "determinism", summary, do="let what is random, or counts its calls, depend on self.training")


def keeps_images_apart(network: Candidate) -> None:
    """In eval an image gets the same logits alone as in a batch."""
    network.prepare()
    x = network.image((40, 33), count=3)
    whole = network.logits(x, "batch")
    for index in range(len(x)):
        each = slice(index, index + 1)
        alone = network.logits(x[each], "batch")
        summary = "In eval the logits of an image depend on the other images of its batch."
        same(alone, whole[each], "batch", summary, TOLERANCE, do="take statistics over the batch in training alone")


def has_gradients(network: Candidate) -> None:
    """After one step of an optimiser every trainable parameter gets a gradient, finite and not zero throughout.

    Before that step scores that begin at zero pass none on. The bias of a layer right before a norm has one of zero.
    A network with auxiliary logits offers them, the main ones first, by a method `forward_deep`.
    """
    module = network.module.train()
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    if not trained:
        return
    optimiser = torch.optim.AdamW(trained.values(), lr=1e-3)
    side = max(64, 2 * network.stride)
    spared = _biases_before_norms(module)
    for _ in range(2):
        module.zero_grad()
        attempt("gradients", "The network cannot be trained.", lambda: _backward(network, side))
        bad = {name: _complaint(value, id(value) in spared) for name, value in trained.items()}
        optimiser.step()
    bad = {name: complaint for name, complaint in bad.items() if complaint}
    if bad:
        raise ContractError(
            f"{len(bad)} of {len(trained)} trainable parameters get no proper gradient.", clause="gradients",
            found=first_few([f"{name}: {complaint}" for name, complaint in bad.items()], "\n"),
            expected="after one step a finite gradient that is not zero throughout",
            do="use the parameter in forward, or call requires_grad_(False) on it",
        )  # fmt: skip


def computes_in_bfloat16(network: Candidate) -> None:
    """With weights and input in bfloat16 the logits are bfloat16 and nearly the same."""
    network.prepare()
    x = network.image((64, 50)).bfloat16()
    full = network.logits(x.float(), "bfloat16")
    network.module.to(torch.bfloat16)
    half = network.logits(x, "bfloat16")
    if half.dtype != torch.bfloat16:
        raise ContractError(
            "With weights in bfloat16 the logits have another dtype.", clause="bfloat16",
            found=str(half.dtype), expected="torch.bfloat16", do="return the logits in the dtype of the weights",
        )  # fmt: skip
    do = "compute sums over many values, and differences of large ones, in float32"
    same(half, full, "bfloat16", "In bfloat16 the logits are others.", HALF_TOLERANCE, do=do)


def computes_in_channels_last(network: Candidate) -> None:
    """With weights and input in channels_last memory the logits are the same."""
    network.prepare()
    x = network.image((45, 70), count=2)
    plain = network.logits(x, "channels_last")
    network.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other = network.logits(x.contiguous(memory_format=torch.channels_last), "channels_last")
    summary = "In channels_last memory the logits are others."
    same(other, plain, "channels_last", summary, LAYOUT_TOLERANCE, do="use reshape in place of view, and no strides")


def is_saved_whole(network: Candidate) -> None:
    """Its state_dict, written as safetensors and loaded into a copy whose state is zero, gives the same logits."""
    network.prepare()
    x = network.image((33, 20))
    before = network.logits(x, "state_dict")
    emptied = copy.deepcopy(network.module)

    def load() -> None:
        state = {name: value.clone().contiguous() for name, value in network.module.state_dict().items()}
        with torch.no_grad():
            for value in (*emptied.parameters(), *emptied.state_dict().values()):
                value.zero_()
        emptied.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)), strict=True)

    attempt("state_dict", "What the network saves cannot be loaded again.", load)
    after = replace(network, module=emptied).logits(x, "state_dict")
    summary = "After saving and loading the logits are others."
    same(after, before, "state_dict", summary, do="hold all state in parameters and buffers")


def is_as_declared(network: Candidate) -> None:
    """Stride, reach and local: one row of NaN for each phase of the stride changes the rows that it should."""
    if not network.local:
        return
    network.prepare()
    probed = [_probed(network, axis) for axis in (2, 3)]
    found = (max(before for before, _ in probed), max(after for _, after in probed))
    if found != network.reach:
        raise ContractError(
            "The reach is not the declared one.", clause="reach", found=f"(before, after) = {found}",
            expected=f"{network.reach}, which the network declares", do="declare what is found, or correct the layers",
        )  # fmt: skip


def equals_its_parts(network: Candidate) -> None:
    """Of a local network: a part whose context covers the reach, at a multiple of the stride, equals the whole."""
    if not network.local:
        return
    network.prepare()
    stride, after = network.stride, network.reach[1]
    before = -(-network.reach[0] // stride) * stride
    start, rows = before + 2 * stride, stride + 5
    for axis in (2, 3):
        x = network.image((start + rows + after + 2 * stride + 3, 2 * stride + 7))
        x = x if axis == 2 else x.transpose(2, 3).contiguous()
        whole = network.logits(x, "parts")
        part = network.logits(x.narrow(axis, start - before, before + rows + after).contiguous(), "parts")
        summary = "A part of an image gets other logits than the whole image has there."
        do = "declare local = False, or remove what depends on the extent or on the place in the image"
        one, other = part.narrow(axis, before, rows), whole.narrow(axis, start, rows)
        same(one, other, "parts", summary, TOLERANCE, largest=float(whole.abs().max()), do=do)


def compiles(network: Candidate) -> None:
    """`torch.compile` makes one graph of it for all sizes."""
    network.prepare()
    torch.compiler.reset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = torch.compile(network.module, backend="eager", fullgraph=True, dynamic=True)
            for count, size in ((2, (37, 41)), (3, (64, 50))):
                _check_graph(network, size, count, "compile", graph)
    finally:
        torch.compiler.reset()


def exports(network: Candidate) -> None:
    """`torch.export` makes one graph of it for all batches and sizes."""
    network.prepare()
    some = torch.export.Dim.DYNAMIC
    x, shapes = network.image((75, 101), count=2), ({0: some, 2: some, 3: some},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = "The network cannot be exported for all sizes."
        export = partial(torch.export.export, network.module, (x,), dynamic_shapes=shapes)
        graph = attempt("export", summary, lambda: export().module(), do=GRAPH_ADVICE)
        for count, size in ((1, (33, 130)), (3, (64, 64)), (1, (7, 128))):
            _check_graph(network, size, count, "export", graph)


CLAUSES: dict[str, Callable[[Candidate], None]] = {
    "size": has_size,
    "determinism": is_deterministic,
    "batch": keeps_images_apart,
    "gradients": has_gradients,
    "bfloat16": computes_in_bfloat16,
    "channels_last": computes_in_channels_last,
    "state_dict": is_saved_whole,
    "probe": is_as_declared,
    "parts": equals_its_parts,
    "compile": compiles,
    "export": exports,
}
"""What is proven, in this order. The probe speaks for three clauses: local, stride and reach."""


def _check_graph(network: Candidate, size: tuple[int, int], count: int, clause: str, graph: Any) -> None:
    """The graph computes what the network computes."""
    x = network.image(size, count=count)
    summary = f"The graph does not compute {count} images of {size[0]}x{size[1]} px."
    with torch.no_grad():
        found = attempt(clause, summary, lambda: graph(x), do=GRAPH_ADVICE)
    expected = network.logits(x, clause)
    same(found, expected, clause, "The graph computes other logits than the network.", LAYOUT_TOLERANCE)


def _backward(network: Candidate, side: int) -> None:
    """Gradients of a random linear function of the logits of four images of side x side pixels."""
    x = network.image((side, side), count=4)
    deep = getattr(network.module, "forward_deep", None)
    logits = deep(x) if deep is not None else [network.module(x)]
    torch.stack([(each * torch.randn_like(each)).mean() for each in logits]).sum().backward()  # type: ignore[no-untyped-call]


def _biases_before_norms(module: nn.Module) -> set[int]:
    """Filled while `module` computes: the ids of biases whose layer hands its output straight to a norm."""
    spared: set[int] = set()
    last: list[Any] = [None, None]

    def watch(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(layer, _NORMS) and inputs and inputs[0] is last[1]:
            spared.add(id(getattr(last[0], "bias", None)))
        last[:] = layer, output

    for layer in module.modules():
        if not any(True for _ in layer.children()):
            layer.register_forward_hook(watch)
    return spared


def _complaint(parameter: nn.Parameter, may_be_zero: bool) -> str:
    if parameter.grad is None:
        return "no gradient"
    if not bool(parameter.grad.isfinite().all()):
        return "not finite"
    return "" if may_be_zero or bool(parameter.grad.any()) else "zero throughout"


def _probed(network: Candidate, axis: int) -> tuple[int, int]:
    """(before, after) on an axis: how far from a row of NaN logits are NaN, at most over the phases of the stride."""
    stride = network.stride
    room = -(-(max(network.reach) + 16) // stride) * stride + 2 * stride
    rows, spans = 2 * room + stride, []
    for phase in range(stride + 1):
        x = torch.zeros(1, network.channels, rows, 1)
        x[:, :, room + phase] = float("nan")
        logits = network.logits(x if axis == 2 else x.transpose(2, 3).contiguous(), "reach")
        bad = logits.isnan().any(dim=1).flatten().nonzero().flatten().tolist() or [room + phase]
        if bad[0] == 0 and bad[-1] == rows - 1:
            raise ContractError(
                "The network says that it is local, and one row changes all logits.", clause="local",
                found=f"{rows} of {rows} rows changed", expected=f"{sum(network.reach) + 1} at most, as declared",
                do="declare local = False, or a reach as large as it is",
            )  # fmt: skip
        spans.append((bad[0] - room, bad[-1] - room))
    if spans[-1] != (spans[0][0] + stride, spans[0][1] + stride):
        raise ContractError(
            "The logits do not move with an image that is moved by the stride.", clause="stride",
            found=f"row 0 changes rows {spans[0][0]} to {spans[0][1]}, row {stride} {spans[-1][0]} to {spans[-1][1]}",
            expected=f"the same rows {stride} further on",
            do="declare the product of all factors by which the network reduces the image",
        )  # fmt: skip
    before = max(last - phase for phase, (_, last) in enumerate(spans))
    after = max(phase - first for phase, (first, _) in enumerate(spans))
    return max(before, 0), max(after, 0)
