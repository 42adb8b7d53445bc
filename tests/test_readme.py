"""Every command and every line of Python in the README runs, on drawn images and with two steps in place of minutes."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from keepmap.artefacts import benching
from keepmap.artefacts.benching import SpeedRow
from keepmap.cli.main import COMMANDS, main
from keepmap.data.drawn import draw_dataset
from keepmap.external import available
from keepmap.networks.catalogue import build_network
from keepmap.networks.encoders import build_encoder
from keepmap.serving import server
from keepmap.weights.sources import SOURCES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = ["--steps", "2", "--crop", "64", "--batch", "2"]
LENGTHS = {"--time", "--steps", "--epochs"}


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> Iterator[list[str]]:
    """The words of each line of each shell block, without comments."""
    for line in "".join(blocks("sh")).splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def shortened(words: list[str]) -> list[str]:
    """A keepmap command that takes seconds: two steps of training, twelve seconds of demo, a small run to export."""
    verb, *rest = words
    if verb == "export":
        return [verb, "deep", *rest[1:]]
    if verb == "serve":
        return [verb, *rest, "--port", "0"]
    kept = [w for i, w in enumerate(rest) if w not in LENGTHS and (i == 0 or rest[i - 1] not in LENGTHS)]
    if verb in ("plan", "train") and "--resume" not in rest:
        return [verb, *kept, *SHORT]
    return [verb, *kept, "--time", "12s"] if verb == "demo" else words


def state_of_another_library() -> dict[str, torch.Tensor]:
    """A narrow U-Net under the names of milesial's."""
    network = build_network("unet", channels=3, classes=3, options={"widths": (4, 6, 8, 10, 12)})
    theirs = SOURCES["milesial:unet"].theirs
    return {theirs(name): tensor for name, tensor in network.state_dict().items() if name not in ("mean", "std")}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the README takes for granted, as the current one."""
    draw_dataset(tmp_path, count=5, seed=0)
    draw_dataset(tmp_path / "test", count=2, seed=1)
    shutil.copy(tmp_path / "test" / "images" / "cells_001.png", tmp_path / "photo.png")
    torch.save(build_encoder("resnet18", 3).state_dict(), tmp_path / "resnet18.pth")
    torch.save(state_of_another_library(), tmp_path / "net.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_keepmap_command_runs(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = SpeedRow("OpenVINO", "float32", "one pass", 1, 1.0, 1)
    monkeypatch.setattr(benching, "_in_own_process", lambda task: row)
    monkeypatch.setattr(server, "check_together", lambda *_: {})
    monkeypatch.setattr(server.Server, "run", lambda self: None)
    monkeypatch.setenv("KEEPMAP_CACHE", str(desk / "cache"))
    exported, served = (all(map(available, names)) for names in (("openvino", "onnxscript"), ("fastapi", "uvicorn")))
    for program, *words in commands():
        if program == "keepmap" and (exported or "deployed" not in words) and (served or words[0] != "serve"):
            code = main(shortened(words))
            assert code == 0, f"keepmap {shlex.join(shortened(words))}: {capsys.readouterr()}"
    assert (desk / "scores.json").stat().st_size > 0
    assert {path.name for path in (desk / "predictions").rglob("*.png")} >= {"photo.png", "cells_000.png"}
    tree = {line.split()[1].rstrip("/") for line in README.splitlines() if line.startswith(("├", "└"))}
    assert tree == {path.name for path in (desk / "run").iterdir()}


def test_every_line_of_python_runs(desk: Path) -> None:
    for block in blocks("python"):
        code = re.sub(r'time="\w+"', "steps=2, crop=64, batch=2", block)
        space: dict[str, object] = {}
        exec(compile(code, "README.md", "exec"), space)
        assert space["labels"].shape == space["image"].shape[:2]  # type: ignore[attr-defined]


def test_every_verb_is_shown() -> None:
    shown = {words[1] for words in commands() if words[0] == "keepmap"}
    assert shown == {command.__name__.replace("_", "-") for command in COMMANDS}


def test_set_up_commands_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for program, *words in commands():
        if program == "make":
            assert set(words) <= set(targets)
        elif program == "pip":
            assert set(re.findall(r"\[(\w+)\]", words[-1])) <= set(extras)
        else:
            assert program == "keepmap"


def test_linked_files_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"):
        for target in re.findall(r"\]\(([^):#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_shortening_leaves_no_minutes() -> None:
    assert shortened(["train", "a", "b", "-o", "r", "--time", "10m"]) == ["train", "a", "b", "-o", "r", *SHORT]
    assert shortened(["train", "-o", "r", "--resume"]) == ["train", "-o", "r", "--resume"]
    assert shortened(["demo", "--time", "1m"]) == ["demo", "--time", "12s"]
