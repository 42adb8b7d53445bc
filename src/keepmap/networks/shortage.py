"""What is said where the memory does not suffice: what each level of the network takes, and what to do about it.

Recognises the failures of torch's allocators; tries nothing again.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from keepmap.errors import OutOfMemory
from keepmap.networks.catalogue import NETWORKS
from keepmap.networks.describe import LevelRow, describe, peak_bytes
from keepmap.units import in_bytes

_SIGNS = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")
"""What the messages of allocators have in common, in lower case: CPU (Linux, Windows), MPS, C++, CUDA's libraries."""
_LONGEST = 200


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def told_by_level(
    network: nn.Module, shape: Sequence[int], *, device: str, bytes_per_value: int, training: bool, do: str
) -> Iterator[None]:
    """Turn a failure for want of memory into OutOfMemory with the levels of `network`; other errors pass.

    shape: of the values (N, C, H, W) that the network was given. bytes_per_value: of a feature map.
    The tensors that the failed step held in its local variables are let go.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        traceback.clear_frames(error.__traceback__)
        images, height, width = shape[0], *shape[-2:]
        work = "a training step" if training else "one pass"
        raise OutOfMemory(
            f"The memory of {device} does not suffice for {work} of {images} image{'s' * (images > 1)} "
            f"of {height}x{width} px.",
            found=next(iter(str(error).splitlines()), "")[:_LONGEST] or type(error).__name__,
            expected=_needed(network, images, (height, width), bytes_per_value, training),
            do=do,
        ) from error


def _needed(network: nn.Module, images: int, size: tuple[int, int], bytes_per_value: int, training: bool) -> str:
    """What the network takes, and the short form of its level table; nothing where it cannot be built from its config.

    The network itself may have been changed for speed, so that its layers are no longer those of the table.
    """
    kind: Any = type(network)
    try:
        with torch.device("meta"):
            twin = kind(network.config)
        peak = images * peak_bytes(twin, size, bytes_per_value=bytes_per_value, training=training)
        rows = describe(twin, size, bytes_per_value=bytes_per_value)
    except (AttributeError, TypeError):
        return ""
    command = _command(twin, size)
    dtype = "bfloat16" if bytes_per_value == 2 else "float32"
    head = f"{in_bytes(peak)} in {dtype}, weights not counted; of each image" + f" ({command})" * bool(command)
    return "\n".join([f"{head}:", *_table(rows, training)])


def _table(rows: Sequence[LevelRow], training: bool) -> list[str]:
    """Level, extent, channels and bytes, in columns."""
    kept = "training" if training else "inference"
    lines = [("level", "extent", "channels", kept)]
    for row in rows:
        count = row.training_bytes if training else row.inference_bytes
        lines.append((str(row.level), f"{row.size[0]}x{row.size[1]}", str(row.channels), in_bytes(count)))
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(line, wide, strict=True)) for line in lines]


def _command(network: Any, size: tuple[int, int]) -> str:
    """The shell's command that shows the whole table; "" for a network that the shell cannot name."""
    name = next((name for name, (_, kind) in NETWORKS.items() if type(network) is kind), None)
    if name is None:
        return ""
    words = [f"keepmap models {name} --size {size[0]}x{size[1]}"]
    for field in dataclasses.fields(network.config):
        value = getattr(network.config, field.name)
        if field.name in ("channels", "classes"):
            words.append(f"--{field.name} {value}")
        elif value != field.default:
            words.append(f"--set {field.name}={_word(value)}")
    return " ".join(words)


def _word(value: Any) -> str:
    """An option of a network as `--set` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) + "," * (len(value) == 1)
    return str(value).lower() if isinstance(value, bool) else str(value)
