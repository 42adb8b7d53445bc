"""One optimiser step under Lightning Fabric: device, precision, memory layout, gradients in parts, averaged weights.

Knows no data set and no RUN: the loop, the measuring of a step and the benchmarks all take their steps here.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from keepmap.errors import OptionError, RunError
from keepmap.networks.layers import ACTIVATION
from keepmap.networks.network import Network
from keepmap.networks.reach import CONVS
from keepmap.networks.shortage import told_by_level
from keepmap.networks.trace import steps_of
from keepmap.planning.plan import MemoryFormat
from keepmap.planning.recipe import LossConfig, OptimiserConfig
from keepmap.training.loss import Truth, loss_of, loss_of_heads
from keepmap.training.ranks import Ranks

_BETAS = (0.9, 0.999)
_MOMENTUM = 0.9
_BLOCK = 16
_OVERWRITING = (ACTIVATION["relu"], ACTIVATION["relu6"])
_LESS_MEMORY = "pass a smaller --batch or --crop, or --checkpointing; or free memory, and --resume what was begun"


class Engine:
    """A network with its loss and its optimiser, ready to step.

    network: any module from (N, C, *S) raw values to logits (N, K, *S); trained in place.
    Where it has `deep_heads`, (stride, weight) of each of the logits that its `forward_deep` returns, it is trained on
    the weighted sum of their losses.
    precision: "float32" or "bfloat16" (autocast, float32 weights).
    memory_format: "contiguous" or "channels_last"; None for what `fast_format` says.
    ranks: the processes that step together, each with as many crops of the batch: the step is that of all crops.
    micro: crops of one forward and backward pass, to be set at will; 0 for all of a batch at once.
    judged: what is to be validated and kept: the network, or where the optimiser averages weights a second one with
    their average. Its norms have the statistics of the network, until `renew_statistics` computes its own.
    Raises OptionError where the encoder is to learn at a rate of its own and the network has no `encoder`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str,
        precision: str,
        memory_format: MemoryFormat | None = None,
        optimiser: OptimiserConfig = OptimiserConfig(),  # noqa: B008
        loss: LossConfig = LossConfig(),  # noqa: B008
        ranks: Ranks = Ranks(),  # noqa: B008
    ) -> None:
        self.ranks, self.precision, self.loss = ranks, precision, loss
        self._width = 2 if precision == "bfloat16" else 4
        chosen = memory_format or fast_format(network, device, precision)[0]
        self._layout = torch.channels_last if chosen == "channels_last" else torch.contiguous_format
        self.network = network.to(memory_format=self._layout)  # type: ignore[call-overload]
        if device == "cpu" and isinstance(network, Network):
            _spare_inputs(network)
        plugins = [_autocast(device)] if precision == "bfloat16" else []
        self.heads: tuple[tuple[int, float], ...] = getattr(network, "deep_heads", ())
        unused = not isinstance(network, Network) or not all(weight for _, weight in self.heads)
        self.fabric = ranks.fabric(device, plugins, find_unused=unused)
        self.config = optimiser
        self.optimiser = _optimiser(network, optimiser)
        self._loss_of = loss_of(loss, ranks)
        trained = self.network
        if ranks.size > 1 and device == "cuda" and not optimiser.frozen_statistics:
            trained = with_common_statistics(self.network.to(self.fabric.device))
        self._model, self._stepper = self.fabric.setup(trained, self.optimiser)
        self.micro = 0
        if self.heads:
            self._model.mark_forward_method("forward_deep")
        self.judged = copy.deepcopy(self.network).requires_grad_(False) if optimiser.averaging else self.network
        self._updates = 0

    def step(self, x: Tensor, y: Tensor, learning_rate: float, pixel_weights: Tensor | None = None) -> float:
        """One step on x (N, C, *S) raw values and y (N, *S) int64; returns the loss before it.

        pixel_weights: (N, *S) float32, what each pixel counts in cross-entropy and focal; None: all the same.
        The gradients of parts of `micro` crops are added up. Cross-entropy and focal count by the labelled pixels, so
        that their gradient is that of the whole batch; Dice and Tversky are each part's own, by the crops. Batch norm
        sees the parts.
        Where a loss or a gradient is no number it returns NaN or infinity and changes nothing, running statistics
        included. Raises OutOfMemory, after which nothing has changed and the step can be taken again in smaller parts,
        unless it was the optimiser that found no memory for its moments.
        """
        size = self.micro or len(x)
        with told_by_level(
            self.network, x[:size].shape, device=str(self.fabric.device), bytes_per_value=self._width, training=True,
            do=_LESS_MEMORY,
        ):  # fmt: skip
            weights = None if pixel_weights is None else self.fabric.to_device(pixel_weights)
            return self._step(x, Truth(self.fabric.to_device(y), weights), size, learning_rate)

    def _step(self, x: Tensor, truth: Truth, size: int, learning_rate: float) -> float:
        self._model.train()
        if self.config.frozen_statistics:
            _batch_norms(self._model, train=False)
        before = [buffer.clone() for buffer in self.network.buffers()]
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate * group["share"]
        value = math.nan
        try:
            value = self._gradients(x, truth, size)
        finally:
            if not math.isfinite(value):
                with torch.no_grad():
                    for buffer, old in zip(self.network.buffers(), before, strict=True):
                        buffer.copy_(old)
        if math.isfinite(value):
            self._stepper.step()
            self._average()
        return value

    def _gradients(self, x: Tensor, truth: Truth, size: int) -> float:
        """The loss, its gradients left in the parameters; NaN or infinity where one of them is no number."""
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for first in range(0, len(x), size):
            crops, last = slice(first, first + size), first + size >= len(x)
            with self.fabric.no_backward_sync(self._model, enabled=not last):
                loss = self._loss(self._placed(x[crops]), truth[crops], truth)
                total += float(loss.detach())
                if last:
                    total = self.ranks.total(total)
                if last and not math.isfinite(total):
                    return total
                self.fabric.backward(loss * self.ranks.size)
        learnt = [p for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in learnt if p.grad is not None])
        if not math.isfinite(float(norm)):
            return math.nan
        if self.config.clipping is not None:
            torch.nn.utils.clip_grads_with_norm_(learnt, self.config.clipping, norm)
        return total

    def _placed(self, x: Tensor) -> Tensor:
        placed: Tensor = self.fabric.to_device(x).contiguous(memory_format=self._layout)
        return placed

    def _loss(self, x: Tensor, truth: Truth, whole: Truth) -> Tensor:
        """Fabric casts in `forward`; in another method on a single device it does not, marked or not."""
        if not self.heads:
            return self._loss_of(self._model(x), truth, whole)
        with self.fabric.autocast():
            logits = self._model.forward_deep(x)
        return loss_of_heads(self._loss_of, logits, truth, whole, self.heads)

    def _average(self) -> None:
        """Move the average towards the weights, by 1 - decay; the decay rises with the steps, as (1 + n) / (10 + n)."""
        if self.judged is self.network:
            return
        decay = min(self.config.averaging, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        towards = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        towards(list(self.judged.parameters()), list(self.network.parameters()), self._updates)
        self._take_buffers()

    def _take_buffers(self) -> None:
        for mine, theirs in zip(self.judged.buffers(), self.network.buffers(), strict=True):
            mine.copy_(theirs)

    def renew_statistics(self, batches: Iterable[Tensor]) -> None:
        """Give the averaged network the statistics of its own features, over a few batches x (N, C, *S) of training.

        The next step overwrites them. Does nothing, and draws no batch, where the network itself is judged or its
        statistics are frozen.
        """
        if self.judged is self.network or self.config.frozen_statistics:
            return
        norms = _batch_norms(self.judged.eval(), train=True)
        usual = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        try:
            with torch.no_grad(), self.fabric.autocast():
                for x in batches if norms else ():
                    for part in torch.split(x, self.micro or len(x)):
                        self.judged(self._placed(part))
        finally:
            for norm, momentum in zip(norms, usual, strict=True):
                norm.momentum = momentum
            self.judged.eval()

    def state(self) -> dict[str, Tensor]:
        """Weights, buffers, optimiser moments and averaged weights under flat names, on the CPU."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, moment in self.optimiser.state.get(parameter, {}).items():
                if moment is not None:
                    tensors[f"optimiser/{key}/{name}"] = moment
        if self.judged is not self.network:
            tensors |= {f"average/{name}": parameter for name, parameter in self.judged.named_parameters()}
            tensors["updates"] = torch.tensor(self._updates)
        return {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}

    def share_state(self) -> None:
        """Give all processes the state of the first."""
        if self.ranks.size > 1:
            state = self.ranks.from_first(self.state)
            if not self.ranks.first:
                self.restore(state)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` returned; the weights must match the network exactly.

        Raises RunError, with nothing changed, where weights are to be averaged and the state has no average.
        """
        if self.judged is not self.network and "updates" not in tensors:
            raise RunError(
                "The state of the training has no averaged weights.", found="a state without an average",
                expected=f"one that was saved with averaging {self.config.averaging:g}",
                do="begin a new RUN with --init, or put plan.json back as it was",
            )  # fmt: skip
        self.network.load_state_dict(_below("network/", tensors))
        parameters = dict(self.network.named_parameters())
        for key, tensor in _below("optimiser/", tensors).items():
            moment, name = key.split("/", 1)
            like = tensor if moment == "step" else parameters[name]
            self.optimiser.state[parameters[name]][moment] = torch.empty_like(like).copy_(tensor)
        if self.judged is not self.network:
            self._updates = int(tensors["updates"])
            for name, parameter in self.judged.named_parameters():
                parameter.copy_(tensors[f"average/{name}"])
            self._take_buffers()


def _optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Of groups by what decays and what learns at which share of the rate. Raises OptionError."""
    if config.encoder_rate != 1 and not hasattr(network, "encoder"):
        raise OptionError(
            "Only a network with an encoder can have it learn at a rate of its own.",
            found=f"encoder_rate {config.encoder_rate:g} and {type(network).__name__}", expected="encoder_rate 1",
        )  # fmt: skip
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        share = config.encoder_rate if name.startswith("encoder.") else 1.0
        groups.setdefault((parameter.ndim > 1, share), []).append(parameter)
    settings = [
        {"params": members, "weight_decay": config.weight_decay * decays, "share": share}
        for (decays, share), members in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(settings, lr=0.0, momentum=_MOMENTUM, nesterov=True, fused=True)
    return torch.optim.AdamW(settings, lr=0.0, betas=_BETAS, fused=True)


def _spare_inputs(network: Network) -> None:
    """Let no ReLU overwrite its input, where nothing else reads that: on a CPU it takes twice as long.

    It saves next to nothing: an input that comes from a norm is freed as soon as it is read. A core that cannot be
    traced is left as it is.
    """
    try:
        steps = steps_of(network)
    except TypeError:
        return
    reads = Counter(index for step in steps for index in step.inputs)
    shared = {id(step.layer) for step in steps if any(reads[index] > 1 for index in step.inputs)}
    for step in steps:
        if type(step.layer) in _OVERWRITING and id(step.layer) not in shared:
            setattr(step.layer, "inplace", False)  # noqa: B010  (no field of every module)


def _batch_norms(network: nn.Module, *, train: bool) -> list[_BatchNorm]:
    """The layers of a network that gather statistics, in the mode asked for."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.train(train)
    return norms


def with_common_statistics(network: nn.Module) -> nn.Module:
    """A twin of `network`, on the same weights and buffers, whose batch norms see the crops of all processes (CUDA)."""
    kept = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = copy.deepcopy(network, kept)
    synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(twin)  # type: ignore[no-untyped-call]
    return synchronised


def _autocast(device: str) -> Any:
    """Autocast to bfloat16 that leaves the input alone: raw values of 16 bits would lose half of their digits."""
    from lightning_fabric.plugins.precision import MixedPrecision  # noqa: PLC0415

    plugin = MixedPrecision("bf16-mixed", device)
    plugin.convert_input = lambda data: data  # type: ignore[method-assign]
    return plugin


def fast_format(
    network: nn.Module, device: str, precision: str, fixed: MemoryFormat | None = None
) -> tuple[MemoryFormat, str]:
    """The memory format in which `network` trains fastest, and right; or `fixed`. And why.

    By what is known of the kernels: those of float32 are faster on a CPU in contiguous memory, all others in
    channels_last. Raises OptionError where gradients would be wrong in the one that is fixed.
    """
    wrong = device == "cpu" and precision == "bfloat16" and any(map(_is_miscomputed, network.modules()))
    if wrong and fixed == "channels_last":
        raise OptionError(
            "The gradients of this network would be wrong in channels_last memory.",
            found="--set memory_format=channels_last, bfloat16 on a CPU, convolutions with holes",
            expected="--set memory_format=contiguous, or --precision float32",
        )  # fmt: skip
    if wrong:
        return "contiguous", "gradients of its convolutions with holes are wrong in channels_last, in bfloat16 on a CPU"
    if device == "cpu" and precision == "float32":
        return fixed or "contiguous", "float32 trains faster on a CPU than in channels_last"
    return fixed or "channels_last", f"{precision} trains fastest so on {device}"


def _is_miscomputed(layer: nn.Module) -> bool:
    """Whether torch's CPU kernels get the gradient of a convolution's weights wrong, in bfloat16 and channels_last.

    With holes and more than 16 input channels that are no multiple of 16, torch 2.13 reads memory that nothing wrote.
    """
    if not isinstance(layer, CONVS):
        return False
    return max(layer.dilation) > 1 and layer.in_channels > _BLOCK and layer.in_channels % _BLOCK > 0


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
