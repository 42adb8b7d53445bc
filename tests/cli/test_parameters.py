"""The shell and Python have the same options: names, defaults, types, explanations."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

import keepmap
from keepmap import options
from keepmap.cli.main import COMMANDS, app, main
from keepmap.cli.parameters import option_parameters, parse_extent, parse_settings, require_writable
from keepmap.errors import OptionError, OutputError

DATACLASSES = {
    "check": options.CheckOptions,
    "convert": options.ConvertOptions,
    "train": options.TrainOptions,
    "plan": options.TrainOptions,
    "evaluate": options.EvaluateOptions,
    "compare": options.CompareOptions,
    "predict": options.PredictOptions,
    "demo": options.DemoOptions,
    "import-weights": options.ImportOptions,
    "export": options.ExportOptions,
    "bench": options.BenchOptions,
    "serve": options.ServeOptions,
}
GROUP: Any = typer.main.get_command(app)
SHELL_ONLY = {"quiet", "json", "table"}
"""What is shown, and files of the result."""
PYTHON_ONLY = {"progress", "network", "augment"}
"""Objects: a display, and a network of the user's own."""


def _fields(verb: str) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(DATACLASSES[verb])}


def _verb(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(keepmap, name.replace("-", "_"))
    return function


@pytest.mark.parametrize("verb", DATACLASSES)
def test_command_has_every_field_with_its_default_and_help(verb: str) -> None:
    shown = {parameter.name: parameter for parameter in GROUP.commands[verb].params}
    for name, field in _fields(verb).items():
        assert shown[name].opts == ["--" + name.replace("_", "-")]
        assert shown[name].default == field.default
        assert shown[name].help == field.metadata["help"]


@pytest.mark.parametrize("verb", DATACLASSES)
def test_python_function_has_every_field_with_its_default(verb: str) -> None:
    parameters = inspect.signature(_verb(verb), eval_str=True).parameters
    hints = typing.get_type_hints(DATACLASSES[verb])
    for name, field in _fields(verb).items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == field.default
        assert parameters[name].annotation == hints[name]


@pytest.mark.parametrize("verb", DATACLASSES)
def test_nothing_is_reachable_from_one_side_only(verb: str) -> None:
    shell = {parameter.name for parameter in GROUP.commands[verb].params} - (SHELL_ONLY - set(_fields(verb)))
    python = set(inspect.signature(_verb(verb)).parameters) - PYTHON_ONLY
    assert shell == python


@pytest.mark.parametrize("verb", DATACLASSES)
def test_positional_names_have_the_order_of_python(verb: str) -> None:
    shell = [p.name for p in GROUP.commands[verb].params if p.param_type_name == "argument"]
    python = list(inspect.signature(_verb(verb)).parameters)
    assert python[: len(shell)] == shell


def test_every_command_is_a_public_function_and_can_be_quiet() -> None:
    assert [command.__name__.replace("_", "-") for command in COMMANDS] == list(GROUP.commands)
    assert set(DATACLASSES) | {"models"} == set(GROUP.commands)
    for name, command in GROUP.commands.items():
        assert name == "models" or name.replace("-", "_") in keepmap.__all__
        assert "--quiet" in {opt for parameter in command.params for opt in parameter.opts}


@pytest.mark.parametrize("verb", DATACLASSES)
def test_choices_are_those_of_the_dataclass(verb: str) -> None:
    hints = typing.get_type_hints(DATACLASSES[verb])
    for parameter in GROUP.commands[verb].params:
        if typing.get_origin(hints.get(parameter.name)) is typing.Literal:
            assert parameter.metavar == "|".join(typing.get_args(hints[parameter.name]))


def test_parameters_of_a_new_dataclass() -> None:
    @dataclasses.dataclass(frozen=True)
    class New:
        half_size: int = dataclasses.field(default=3, metadata={"help": "half the size"})

    (parameter,) = option_parameters(New)
    assert parameter.name == "half_size"
    assert parameter.default == 3
    assert typing.get_args(parameter.annotation)[1].default == "--half-size"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-o", "run", "--weights", "imagnet"], "did you mean imagenet?"),
        (["-o", "run", "--weights", "random"], "one of auto, imagenet, none, FILE"),
        (["--precision", "float16"], "did you mean bfloat16?"),
        (["--encodr", "resnet18"], "did you mean --encoder?"),
        (["--zzzzzzz"], "one of --out, --resume, --preview, --quiet, --classes, --ignore"),
    ],
)
def test_wrong_option_or_choice_names_the_nearest(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "images", "masks", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"  expected  {expected}" in err


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from("xX"))
def test_extent(height: int, width: int, times: str) -> None:
    assert parse_extent(f"{height}{times}{width}") == (height, width)


@pytest.mark.parametrize("text", ["", "3", "3x", "x3", "0x3", "3x0", "-1x3", "3*4", "3x4x5", "3.5x4"])
def test_bad_extent_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--size"):
        parse_extent(text)


@pytest.mark.parametrize(
    ("text", "settings_"),
    [
        ("widths=16,32,64", {"widths": (16, 32, 64)}),
        ("widths=16,", {"widths": (16,)}),
        ("widths= 16, 32", {"widths": (16, 32)}),
        ("stem-skip=false", {"stem_skip": False}),
        ("stem_skip=True", {"stem_skip": True}),
        ("up=bilinear", {"up": "bilinear"}),
        ("norm=none", {"norm": "none"}),
        ("skips=2", {"skips": 2}),
        ("rate=0.5", {"rate": 0.5}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_settings(text: str, settings_: dict[str, Any]) -> None:
    assert parse_settings([text]) == settings_
    assert [type(value) for value in parse_settings([text]).values()] == [type(value) for value in settings_.values()]


@pytest.mark.parametrize("text", ["widths", "=3", "widths=", ""])
def test_bad_setting_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--set"):
        parse_settings([text])


def test_a_result_file_is_refused_before_the_work(tmp_path: Path) -> None:
    require_writable(None)
    require_writable(tmp_path / "new.json")
    with pytest.raises(OutputError, match="is a folder"):
        require_writable(tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        require_writable(tmp_path / "missing" / "new.json")
