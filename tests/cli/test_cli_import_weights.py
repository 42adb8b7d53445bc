"""`keepmap import-weights` hands everything over; wrong files end with exit code 2, and nothing is half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import keepmap
from keepmap.cli.main import main
from keepmap.protocols import Silent


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def import_weights(file: Path, source: str, out: Path, **options: Any) -> Path:
        made.append((file, source, out, options))
        return out

    monkeypatch.setattr(keepmap, "import_weights", import_weights, raising=False)
    return made


def test_everything_is_handed_over(calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import-weights", "net.pth", "--as", "milesial:unet", "-o", "my run", "--mean", "1,2.5,3", "--std", "9"]
    assert main([*words, "--classes", "names.txt"]) == 0
    ((file, source, out, options),) = calls
    assert (file, source, out) == (Path("net.pth"), "milesial:unet", Path("my run"))
    del options["progress"]
    assert options == {"classes": "names.txt", "mean": (1.0, 2.5, 3.0), "std": (9.0,), "offline": False}
    assert capsys.readouterr() == ("keepmap predict 'my run' IMAGE... -o OUT\n", "")


def test_quiet(calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-weights", "net.pth", "--as", "milesial:unet", "-o", "run", "-q"]) == 0
    assert isinstance(calls[0][3]["progress"], Silent)
    assert calls[0][3]["mean"] is None
    assert capsys.readouterr() == ("", "")


def test_numbers_that_are_none_are_wrong(calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-weights", "net.pth", "--as", "milesial:unet", "-o", "run", "--mean", "1,two"]) == 2
    assert "numbers with commas" in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["absent.pth", "--as", "milesial:unet"], 2, "absent.pth is no file"),
        (["net.pth", "--as", "milesial:unett"], 2, "did you mean milesial:unet?"),
        (["net.pth", "--as", "milesial:unet"], 2, "net.pth holds the weights of another network"),
        (["broken.pth", "--as", "milesial:unet"], 2, "broken.pth cannot be read as weights"),
        (["published", "--as", "torchvision:fcn_resnet50", "--offline"], 1, "download https://download.pytorch.org"),
    ],
)
def test_what_is_wrong_is_named(
    words: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEEPMAP_CACHE", str(tmp_path / "cache"))
    torch.save({"conv.weight": torch.zeros(1)}, "net.pth")
    Path("broken.pth").write_text("<html>")
    assert main(["import-weights", *words, "-o", "run"]) == code
    assert expected in capsys.readouterr().err
    assert not Path("run").exists()


def test_nothing_is_fetched_for_training_when_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from keepmap.data.drawn import draw_dataset

    monkeypatch.setenv("KEEPMAP_CACHE", str(tmp_path / "cache"))
    draw_dataset(tmp_path, count=4, seed=0)
    folders = [str(tmp_path / name) for name in ("images", "masks", "run")]
    words = ["train", *folders[:2], "-o", folders[2], "--weights", "imagenet", "--encoder", "resnet18", "--offline"]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "DownloadError: resnet18-f37072fd.pth could not be fetched." in err
    assert "--offline or KEEPMAP_OFFLINE" in err
    assert not (tmp_path / "run").exists()
