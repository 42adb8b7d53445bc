"""Files of strangers: nothing in them is ever run, what is broken is named, and common wrappings come off by rule."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from keepmap.errors import WeightsError
from keepmap.weights.foreign import PREFIXES, WRAPPERS, check_fit, read_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num_batches_tracked": torch.tensor(3)}


class Evil:
    """Unpickled without care it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("where", ["top", "state_dict", "beside weights", "old format", "plain pickle"])
def test_code_is_refused_and_not_run(where: str, tmp_path: Path) -> None:
    file, trap = tmp_path / "net.pth", tmp_path / "trap"
    if where == "plain pickle":
        file.write_bytes(pickle.dumps(Evil(trap)))
    else:
        evil: Any = {"top": Evil(trap), "state_dict": {"state_dict": Evil(trap)}}.get(where, {**STATE, "x": Evil(trap)})
        torch.save(evil, file, _use_new_zipfile_serialization=where != "old format")
    with pytest.raises(WeightsError, match=r"net\.pth") as caught:
        read_weights(file)
    assert not trap.exists()
    assert "weights_only" not in str(caught.value), "nobody is told how to run it after all"
    if where != "plain pickle":
        assert "mkdir" in caught.value.found
    torch.load(file, weights_only=False) if where != "plain pickle" else pickle.loads(file.read_bytes())
    assert trap.exists(), "the trap is one"


@pytest.mark.parametrize("kind", ["module", "numpy", "torchscript"])
def test_more_than_tensors_is_refused_with_what_to_save_instead(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    if kind == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(file)
    else:
        torch.save(nn.Linear(2, 2) if kind == "module" else {"a": np.zeros(2)}, file)
    with pytest.raises(WeightsError, match=r"save network\.state_dict"):
        read_weights(file)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(kept: float, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"net{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(STATE, file)  # type: ignore[operator]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(WeightsError, match=r"cannot be read as weights") as caught:
        read_weights(file)
    assert len(str(caught.value)) < 600
    file.write_bytes(whole)
    assert same(read_weights(file).tensors)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=64))
def test_any_bytes_are_weights_or_a_named_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("net.pth", "net.safetensors"):
        (folder / name).write_bytes(content)
        with pytest.raises(WeightsError, match="net"):
            read_weights(folder / name)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("prefix", ["", *PREFIXES])
def test_wrappings_come_off(wrapper: str, prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "net.ckpt"
    inner = {f"{prefix}{name}": value for name, value in STATE.items()}
    torch.save({"epoch": 3, wrapper: inner, "optimizer": {"state": {}}}, file)
    assert same(read_weights(file).tensors)
    torch.save({"model": {"state_dict": inner}}, file)
    assert same(read_weights(file).tensors)
    torch.save(inner, file)
    assert same(read_weights(file).tensors)


def test_a_prefix_that_not_all_names_have_stays(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save({"model.a": torch.zeros(1), "b": torch.zeros(1)}, file)
    assert set(read_weights(file).tensors) == {"model.a", "b"}


def test_half_precision_becomes_float32_and_what_is_no_tensor_is_kept_apart(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save({"a": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3), "mask_values": [0, 255]}, file)
    found = read_weights(file)
    assert (found.tensors["a"].dtype, found.tensors["n"].dtype) == (torch.float32, torch.int64)
    assert found.others == {"mask_values": [0, 255]}


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], torch.zeros(3), {"model": 5}, {3: torch.zeros(1)}])
def test_what_is_no_state_dict_is_named(content: object, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(content, file)
    with pytest.raises(WeightsError, match="holds no weights"):
        read_weights(file)
    with pytest.raises(WeightsError, match="is no file"):
        read_weights(tmp_path / "absent.pth")


def test_another_network_is_named_by_five_and_not_by_a_wall() -> None:
    expected = {f"layer{i}.weight": torch.zeros(2, 3) for i in range(40)}
    found = {f"block{i}.weight": torch.zeros(2, 3) for i in range(30)} | {"layer0.weight": torch.zeros(9)}
    with pytest.raises(WeightsError, match="another network") as caught:
        check_fit(found, expected, "net.pth", "unet")
    text = caught.value.found
    assert "39 missing: layer1.weight, layer2.weight" in text
    assert "30 not of this network: block0.weight" in text
    assert "1 of another shape: layer0.weight" in text
    assert "layer5.weight" in text and "layer6.weight" not in text
    assert len(str(caught.value)) < 800


def test_counters_may_be_missing_and_nothing_else() -> None:
    expected = {"n.weight": torch.zeros(2), "n.num_batches_tracked": torch.tensor(7)}
    assert check_fit({"n.weight": torch.ones(2)}, expected, "f", "w")["n.num_batches_tracked"] == 0
    with pytest.raises(WeightsError, match=r"1 missing: n\.weight"):
        check_fit({"n.num_batches_tracked": torch.tensor(7)}, expected, "f", "w")
