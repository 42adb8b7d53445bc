"""Weights in files that others wrote: read without running what is in them, unwrapped by rule, compared by name.

Knows no network and no source. torch reads with weights_only=True and there is no second attempt; safetensors files
cannot hold code at all and are the better choice for files of strangers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from keepmap.errors import WeightsError
from keepmap.runs import differences

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "module")
"""Entries under which training scripts keep the weights beside an optimiser, an epoch and so on; the first counts."""
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""What wrappers put before every name: DataParallel, torch.compile, modules that hold the network."""
_COUNTERS = ".num_batches_tracked"
_NEEDED = re.compile(r"(?:global |with )(?:GLOBAL )?([\w.]+\.[\w.]+|TorchScript)", re.IGNORECASE)
"""In torch's refusal: the class or function that the file asks for."""


@dataclass(frozen=True)
class Foreign:
    """What a file holds. tensors: by name, floating ones in float32. others: what lay beside them and is no tensor."""

    tensors: dict[str, Tensor]
    others: dict[str, Any]


def read_weights(path: Path) -> Foreign:
    """The weights in a .safetensors file, or in one that `torch.save` wrote (.pth, .pt, .ckpt, .bin).

    A dictionary that holds the weights under one of WRAPPERS is unwrapped, and one of PREFIXES that every name has is
    taken off. Raises WeightsError for a file that is missing, broken, holds anything that needs code, or no weights.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is no file.", expected="a file of weights, .safetensors or .pth")
    found = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    for _ in range(len(WRAPPERS)):
        if not isinstance(found, Mapping) or any(isinstance(value, Tensor) for value in found.values()):
            break
        found = next((found[name] for name in WRAPPERS if isinstance(found.get(name), Mapping)), None)
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise WeightsError(
            f"{path} holds no weights.",
            found="no tensors by name, neither at the top nor under " + ", ".join(WRAPPERS[:4]),
            expected="a state dict",
            do="save network.state_dict() where it was trained",
        )
    tensors = {name: value.detach() for name, value in found.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    plain = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    return Foreign(plain, {name: value for name, value in found.items() if not isinstance(value, Tensor)})


def check_fit(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: object, what: str
) -> dict[str, Tensor]:
    """The tensors of `found` unless their names and shapes are not those of `expected`; counters may be missing.

    path: of the file.  what: the network that they should be of, in words.
    Raises WeightsError with the first five names that are missing, unknown and of another shape.
    """
    counters = {name: torch.zeros_like(value) for name, value in expected.items() if name.endswith(_COUNTERS)}
    complete = {**counters, **found}
    if gaps := differences(complete, expected):
        raise WeightsError(
            f"{path} holds the weights of another network.",
            found=gaps,
            expected=f"the weights of {what}",
            do="name the network that the file is of",
        )
    return complete


def _safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise _broken(path, error) from error


def _torch(path: Path) -> Any:
    """What torch makes of the file without running any code in it. Raises WeightsError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        needed = _NEEDED.search(str(error))
        if needed is None:
            raise _broken(path, error) from error
        raise WeightsError(
            f"{path} holds more than weights and was not opened: what is in it could run.",
            found=needed[1],
            expected="a state dict: tensors by name",
            do="save network.state_dict() where it was trained, or ask for a .safetensors file",
        ) from error


def _broken(path: Path, error: Exception) -> WeightsError:
    """The error for a file that is cut off or of another kind; torch's own advice to trust it is left out."""
    lines = str(error).splitlines()
    known = "" if not lines or "weights_only" in lines[0] else f"{lines[0][:200]}; "
    with path.open("rb") as file:
        begin = file.read(12)
    return WeightsError(
        f"{path} cannot be read as weights.",
        found=f"{known}{path.stat().st_size} bytes that begin with {begin!r}",
        expected="a whole .safetensors file, or one that torch.save wrote",
        do="fetch or copy it again",
    )
