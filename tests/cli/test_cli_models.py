"""`keepmap models` lists what there is; with a name it shows each level of that network at a size."""

from __future__ import annotations

import pytest

import keepmap
from keepmap.cli.main import main
from keepmap.networks import describe
from keepmap.networks.encoders import ENCODERS
from keepmap.networks.network import Network

SMALL = ["models", "unet", "--size", "37x50", "--set", "widths=4,8,16"]


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_list_names_every_network_and_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    rows = {row[0]: row for row in _rows(out) if row}
    for model in keepmap.list_models():
        before, after = model.reach
        assert f"{before}/{after}" in rows[model.name]
        assert str(model.stride) in rows[model.name]
    assert all(name in out for name in ENCODERS)


def test_levels_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = _rows(out)
    assert out.startswith("unet at 37x50, float32, bytes of one image")
    levels = keepmap.describe_network("unet", size=(37, 50), widths=(4, 8, 16))
    shown = [row for row in rows if row and row[0] in ("0", "1", "2")]
    for row, level in zip(shown, levels, strict=True):
        assert row[1] == f"{level.size[0]}x{level.size[1]}"
        assert row[2] == f"{level.padding[0]}+{level.padding[1]}"
        assert row[3] == str(level.channels)
        assert row[4] == f"{level.reach[0]}/{level.reach[1]}"
    assert [row[0] for row in rows if row][-5:] == ["total", "parameters", "arithmetic", "peak", "reach"]


def test_what_is_special_about_sizes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "unet2015", "--size", "512x512", "--channels", "1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "188 + 16 k px fit without a mirrored border, 184 px less come out" in out
    assert "nearest to 512 px: 508 -> 324 or 524 -> 340" in out
    assert main([*SMALL, "--set", "norm=instance"]) == 0
    assert "tiles are not exact" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["--set", "widths=8,16"], {"widths": (8, 16)}),
        (["--set", "widths=8,16", "--set", "up=bilinear"], {"widths": (8, 16), "up": "bilinear"}),
        (["--set", "widths=8,", "--channels", "1", "--classes", "5"], {"widths": (8,), "channels": 1, "classes": 5}),
    ],
)
def test_settings_reach_the_network(
    words: list[str], same: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = []
    real = describe.sketch

    def sketch(name: str, *, channels: int, classes: int, options: dict[str, object]) -> Network:
        built.append({"channels": channels, "classes": classes, **options})
        return real(name, channels=channels, classes=classes, options=options)

    monkeypatch.setattr(describe, "sketch", sketch)
    assert main(["models", "unet", "--size", "16x16", *words]) == 0
    assert built == [{"channels": 3, "classes": 2} | same]
    assert "total" in capsys.readouterr().out


def test_every_network_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in (["models"], *(["models", row.name, "--size", "10000x12000"] for row in keepmap.list_models())):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80
        assert "\u2026" not in out


def test_quiet_leaves_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "-q"]) == 0
    assert "total" in (quiet := capsys.readouterr().out)
    assert main(SMALL) == 0
    assert capsys.readouterr().out.startswith(quiet)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["unett"], "did you mean unet?"),
        (["encoder-unet"], "did you mean encoder_unet?"),
        (["segformer"], "encoder_unet, fcn"),
        (["unet", "--set", "wdths=16,32"], "did you mean widths?"),
        (["unet", "--set", "up=biliner"], "did you mean bilinear?"),
        (["unet", "--set", "widths"], "NAME=VALUE"),
        (["unet", "--size", "big"], "HEIGHTxWIDTH"),
        (["--set", "widths=16,32"], "keepmap models NAME"),
        (["encoder_unet", "--set", "encoder=resnet19"], "did you mean resnet18?"),
    ],
)
def test_wrong_names_come_with_the_nearest(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in err
