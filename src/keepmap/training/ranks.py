"""The processes that train one network together: how many, which one this is, and what they tell each other.

Knows neither networks nor steps. Lightning Fabric starts and connects them, or finds those of torchrun or SLURM.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from keepmap.errors import KeepmapError, OptionError, TrainingError
from keepmap.resources import process_counts

T = TypeVar("T")
_PATIENCE = timedelta(minutes=30)
"""How long a process waits for one that is silent. The connection of one that died ends at once."""
_SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")
"""What the messages about a lost connection have in common, in lower case."""
_LAUNCHED = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
"""What Fabric leaves in the environment; another training in this process would take it for its own."""


@dataclass(frozen=True)
class Ranks:
    """rank: the number of this process among `size`, 0 for the first, which speaks and writes; here: on its machine."""

    rank: int = 0
    size: int = 1
    here: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process, in all of them; it is not called in the others.

        A KeepmapError that it raises is raised in all of them.
        """
        if self.size == 1:
            return make()
        told: list[Any] = [None]
        if self.first:
            try:
                told = [make()]
            except KeepmapError as error:
                error.everywhere = True
                told = [error]
        dist.broadcast_object_list(told, device=torch.device("cpu"))
        if isinstance(told[0], KeepmapError):
            raise told[0]
        answer: T = told[0]
        return answer

    def agreed(self, ours: Sequence[float], anyones: Sequence[float]) -> list[float]:
        """`ours` as the first process has them, then the largest of each of `anyones`; none is below 0."""
        if self.size == 1:
            return [*ours, *anyones]
        values = torch.tensor([*(value * self.first for value in ours), *anyones], dtype=torch.float64)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return [float(value) for value in values]

    def total(self, value: float) -> float:
        """The sum of the values of all processes; no number where one is none."""
        if self.size == 1:
            return value
        values = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(values)
        return float(values)

    def gathered(self, mine: T) -> list[T]:
        """What all processes have, in their order."""
        if self.size == 1:
            return [mine]
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, mine)
        return told

    def summed(self, x: Tensor) -> Tensor:
        """The sum of the tensors of all processes, where x is; its gradient is that of all of them for x.

        For what every process computes alike from it: the gradients of all are then `size` times that of one.
        """
        if self.size == 1:
            return x
        whole = x.detach().clone()
        dist.all_reduce(whole)
        return whole + self.size * (x - x.detach())

    def fabric(self, device: str, plugins: Sequence[Any] = (), *, find_unused: bool = False) -> Any:
        """The Fabric of this process: one device, or one of each process. find_unused: as DDP understands it.

        Gradients go over NCCL between GPUs, all else over gloo, which notices at once when a process has died.
        """
        from lightning_fabric import Fabric  # noqa: PLC0415  (1.5 s to import: only training pays)
        from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        if self.size == 1:
            return Fabric(accelerator=device, devices=1, plugins=list(plugins))
        ddp = DDPStrategy(
            process_group_backend="cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE,
            find_unused_parameters=find_unused,
        )  # fmt: skip
        machines = self.size // self.here
        fabric = Fabric(
            accelerator=device, devices=self.here, num_nodes=machines, strategy=ddp, plugins=list(plugins)
        )
        fabric.launch()
        return fabric


@contextmanager
def together(devices: int | None, device: str) -> Iterator[Ranks]:
    """Connect the processes that train together for as long as the block lasts; on its way out they wait for all.

    devices: processes to begin on this machine, where neither torchrun nor srun began them. device: resolved.
    A process that dies or is silent for half an hour ends the block in the others with a TrainingError.
    """
    here, machines = process_counts(devices)
    if here * machines == 1:
        yield Ranks()
        return
    _check(here, device)
    added = [name for name in _LAUNCHED if name not in os.environ]
    try:
        fabric = Ranks(0, here * machines, here).fabric(device)
        ranks = Ranks(fabric.global_rank, here * machines, here)
        yield ranks
        ranks.total(0)
        dist.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(sign in str(error).lower() for sign in _SIGNS):
            raise
        raise TrainingError(
            "Another process of this training has ended, or does not answer.", found=str(error).splitlines()[0],
            expected=f"{here * machines} processes to the end",
            do="look at what it said, and go on with --resume",
        ) from error  # fmt: skip
    finally:
        if device == "cpu" and dist.is_initialized():
            dist.destroy_process_group()
        for name in added:
            os.environ.pop(name, None)


def _check(here: int, device: str) -> None:
    """Raise OptionError where the processes of this machine have no device each."""
    there = {"cpu": here, "cuda": torch.cuda.device_count()}.get(device, 1)
    if not dist.is_available() or there < here:
        raise OptionError(
            f"{here} processes need a device each.", found=f"{there} of {device}", expected=f"--devices {there}",
            do="srun: let every task see all GPUs of its machine (--gpus-per-node, no --gpus-per-task)",
        )  # fmt: skip
