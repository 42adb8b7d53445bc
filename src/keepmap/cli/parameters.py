"""Command-line parameters made from the option dataclasses, so that the shell and Python cannot drift apart.

Does not know any particular command.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from keepmap.errors import OptionError, OutputError, nearest

Command = Callable[..., None]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no remarks: results and errors only")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write the result to FILE as JSON")]
JSON_FORMAT = 1
"""The number in every file that `--json` writes."""


def takes(options: type[Any]) -> Callable[[Command], Command]:
    """Replace a command's `**options` by one named parameter for each field of the dataclass `options`."""

    def replace(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *option_parameters(options)]
        )
        return command

    return replace


def option_parameters(options: type[Any]) -> list[inspect.Parameter]:
    """One keyword-only parameter per field: its default, its type and its help as a typer option."""
    hints = typing.get_type_hints(options)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=_annotation(field.name, hints[field.name], field.metadata["help"]),
        )
        for field in dataclasses.fields(options)
    ]


def _annotation(name: str, kind: Any, help: str) -> Any:  # noqa: A002
    """The type of one field, annotated for typer; choices are checked here so that the nearest one can be named.

    A dictionary comes as texts, which the command hands to `parse_settings`.
    """
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        return Annotated[bool, typer.Option(flag, help=help)]
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        check = one_of(flag, choices)
        return Annotated[str, typer.Option(flag, metavar="|".join(choices), help=help, callback=check)]
    if tuple[str, ...] in typing.get_args(kind):
        return Annotated[list[str] | None, typer.Option(flag, metavar="RUN", help=help)]
    if any(typing.get_origin(part) is tuple for part in typing.get_args(kind)):
        return Annotated[str | None, typer.Option(flag, metavar="N,N,...", help=help, callback=_numbers(flag))]
    if dict in {typing.get_origin(inner) for inner in (kind, *typing.get_args(kind))}:
        return Annotated[list[str] | None, typer.Option(flag, metavar="NAME=VALUE", help=help)]
    metavar = "N" if int in (kind, *typing.get_args(kind)) else name.upper()
    return Annotated[kind, typer.Option(flag, metavar=metavar, help=help)]


def one_of(flag: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    """What checks the value of `flag`: the value itself, or OptionError with the nearest of `choices`."""

    def check(value: str) -> str:
        if value not in choices:
            raise OptionError(f"{flag} {value} does not exist.", found=value, expected=nearest(value, choices))
        return value

    return check


def _numbers(flag: str) -> Callable[[str | None], tuple[float, ...] | None]:
    def read(value: str | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError as error:
            raise OptionError(
                f"{flag} {value} cannot be read.", found=value, expected="numbers with commas, such as 124,116,104"
            ) from error

    return read


def parse_extent(text: str) -> tuple[int, int]:
    """(H, W) of "361x479", in pixels. Raises OptionError."""
    match = re.fullmatch(r"([1-9]\d*)[xX]([1-9]\d*)", text.strip())
    if not match:
        raise OptionError(
            f"--size {text} cannot be read.", found=text, expected="HEIGHTxWIDTH in pixels, such as 361x479"
        )
    return int(match[1]), int(match[2])


def parse_settings(texts: list[str]) -> dict[str, Any]:
    """Options of a network from `name=value` texts: true, false, numbers, words, or a list with commas.

    A list of one ends with its comma: `widths=16,`. Raises OptionError.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise OptionError(f"--set {text} cannot be read.", found=text, expected="NAME=VALUE, as in widths=16,32,64")
        settings[name.strip().replace("-", "_")] = _value(value.strip())
    return settings


def _value(text: str) -> Any:
    if "," in text:
        return tuple(_value(part.strip()) for part in text.split(",") if part.strip())
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def require_writable(file: Path | None, flag: str = "--json") -> None:
    """Raise OutputError now if `file` could not be written after the work."""
    if file is None:
        return
    if file.is_dir():
        raise OutputError(f"{file} is a folder.", expected=f"a file name for {flag}")
    if not file.absolute().parent.is_dir():
        raise OutputError(f"{file} cannot be written.", found=f"no folder {file.parent}", do="create the folder first")
