"""One optimiser step under Lightning Fabric: device, precision, memory layout, learning rate.

Knows no data set and no RUN: the loop, the measuring of a step and the benchmarks all take their steps here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from keepmap.networks.reach import CONVS
from keepmap.networks.shortage import told_by_level
from keepmap.planning.plan import Plan
from keepmap.training.loss import cross_entropy_dice, loss_of_heads

_BETAS = (0.9, 0.999)
_BLOCK = 16
_LESS_MEMORY = "pass a smaller --batch or --crop, or --checkpointing; or free memory, and --resume what was begun"


class Engine:
    """A network and its AdamW optimiser, ready to step.

    network: any module from (N, C, *S) raw values to logits (N, K, *S); trained in place. In channels_last memory, but
    on a CPU in float32, which trains faster without, and where its gradients would be wrong.
    Where it has `deep_heads`, (stride, weight) of each of the logits that its `forward_deep` returns, it is trained on
    the weighted sum of their losses.
    precision: "float32" or "bfloat16" (autocast, float32 weights).
    micro: crops of one forward and backward pass, to be set at will; 0 for all of a batch at once.
    """

    def __init__(self, network: nn.Module, *, device: str, precision: str, weight_decay: float) -> None:
        from lightning_fabric import Fabric  # noqa: PLC0415  (1.5 s to import: only training pays)

        fast = device != "cpu" or (precision == "bfloat16" and not any(map(_is_miscomputed, network.modules())))
        self._width = 2 if precision == "bfloat16" else 4
        self._layout = torch.channels_last if fast else torch.contiguous_format
        self.network = network.to(memory_format=self._layout)  # type: ignore[call-overload]
        plugins = [_autocast(device)] if precision == "bfloat16" else []
        self.fabric = Fabric(accelerator=device, devices=1, plugins=plugins)
        decayed = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=_BETAS, fused=True)
        self._model, self._stepper = self.fabric.setup(self.network, self.optimiser)
        self.micro = 0
        self.heads: tuple[tuple[int, float], ...] = getattr(network, "deep_heads", ())
        if self.heads:
            self._model.mark_forward_method("forward_deep")

    def step(self, x: Tensor, y: Tensor, learning_rate: float) -> float:
        """One step on x (N, C, *S) raw values and y (N, *S) int64; returns the loss before it.

        The gradients of parts of `micro` crops are added up. Cross-entropy counts by the labelled pixels, so that its
        gradient is that of the whole batch; Dice is each part's own, by the crops. Batch norm sees the parts.
        Where a loss or a gradient is no number it returns NaN or infinity and changes nothing, running statistics
        included. Raises OutOfMemory, after which nothing has changed and the step can be taken again in smaller parts,
        unless it was the optimiser that found no memory for its moments.
        """
        size = self.micro or len(x)
        with told_by_level(
            self.network, x[:size].shape, device=str(self.fabric.device), bytes_per_value=self._width, training=True,
            do=_LESS_MEMORY,
        ):  # fmt: skip
            return self._step(x, y, size, learning_rate)

    def _step(self, x: Tensor, y: Tensor, size: int, learning_rate: float) -> float:
        self._model.train()
        before = [buffer.clone() for buffer in self.network.buffers()]
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        value = math.nan
        try:
            value = self._gradients(x, self.fabric.to_device(y), size)
        finally:
            if not math.isfinite(value):
                with torch.no_grad():
                    for buffer, old in zip(self.network.buffers(), before, strict=True):
                        buffer.copy_(old)
        if math.isfinite(value):
            self._stepper.step()
        return value

    def _gradients(self, x: Tensor, y: Tensor, size: int) -> float:
        """The loss, its gradients left in the parameters; NaN or infinity where one of them is no number."""
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for first in range(0, len(x), size):
            part = self.fabric.to_device(x[first : first + size]).contiguous(memory_format=self._layout)
            loss = self._loss(part, y[first : first + size], y)
            total += float(loss.detach())
            if not math.isfinite(total):
                return total
            self.fabric.backward(loss)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        return total if math.isfinite(float(torch.nn.utils.get_total_norm(gradients))) else math.nan

    def _loss(self, x: Tensor, y: Tensor, whole: Tensor) -> Tensor:
        """Fabric casts in `forward`; in another method on a single device it does not, marked or not."""
        if not self.heads:
            return cross_entropy_dice(self._model(x), y, whole)
        with self.fabric.autocast():
            logits = self._model.forward_deep(x)
        return loss_of_heads(logits, y, self.heads, whole)

    def state(self) -> dict[str, Tensor]:
        """Weights, buffers and optimiser moments under flat names, on the CPU."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, tensor in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser/{key}/{name}"] = tensor
        return {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` returned; the weights must match the network exactly."""
        self.network.load_state_dict(_below("network/", tensors))
        parameters = dict(self.network.named_parameters())
        for key, tensor in _below("optimiser/", tensors).items():
            moment, name = key.split("/", 1)
            like = tensor if moment == "step" else parameters[name]
            self.optimiser.state[parameters[name]][moment] = torch.empty_like(like).copy_(tensor)


def _autocast(device: str) -> Any:
    """Autocast to bfloat16 that leaves the input alone: raw values of 16 bits would lose half of their digits."""
    from lightning_fabric.plugins.precision import MixedPrecision  # noqa: PLC0415

    plugin = MixedPrecision("bf16-mixed", device)
    plugin.convert_input = lambda data: data  # type: ignore[method-assign]
    return plugin


def _is_miscomputed(layer: nn.Module) -> bool:
    """Whether torch's CPU kernels get the gradient of a convolution's weights wrong, in bfloat16 and channels_last.

    With holes and more than 16 input channels that are no multiple of 16, torch 2.13 reads memory that nothing wrote.
    """
    if not isinstance(layer, CONVS):
        return False
    return max(layer.dilation) > 1 and layer.in_channels > _BLOCK and layer.in_channels % _BLOCK > 0


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def learning_rate(step: int, plan: Plan) -> float:
    """Linear warm-up, then half a cosine down to 0 at the last step (Loshchilov 2017, without restarts)."""
    rising = min(1.0, (step + 1) / plan.warm_up)
    return plan.learning_rate * rising * (0.5 + 0.5 * math.cos(math.pi * step / plan.steps))
