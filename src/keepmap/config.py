"""Frozen dataclasses to JSON and back, strict both ways; files with a format number, written atomically.

Knows no particular dataclass: those live beside the code that they configure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from keepmap.errors import DiskFull, InputError, OptionError, OutputError, RunError, nearest

T = TypeVar("T")
LONGEST_NAME = 255
"""Bytes of a file's name, on nearly every file system."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the device, the user's quota used up, a file larger than allowed."""


def option(default: Any, help: str) -> Any:  # noqa: A002
    """A dataclass field with a default and the sentence that the command line shows for it."""
    return dataclasses.field(default=default, metadata={"help": help})


def from_arguments(cls: type[T], arguments: Mapping[str, Any]) -> T:
    """Build `cls` from a function's `locals()`, taking the names that are fields of `cls`. Raises OptionError."""
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {name: value for name, value in arguments.items() if name in names}
    return from_dict(cls, {n: os.fspath(v) if isinstance(v, os.PathLike) else v for n, v in values.items()}, "the call")


def to_dict(value: Any) -> dict[str, Any]:
    """A dataclass instance as JSON-ready dictionaries and lists (tuples become lists)."""
    return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def from_dict(cls: type[T], values: Mapping[str, Any], where: str, error: type[InputError] = OptionError) -> T:
    """Build the dataclass `cls` from `values`; an unknown name, a missing one or a wrong type raises `error`.

    where: what the values came from, for the message ("options of unet", "run/config.json").
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise error(f"{where} has no field {name}.", found=name, expected=nearest(name, fields))
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _typed(hints[name], values[name], f"{where}: {name}", error)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise error(f"{where} lacks the field {name}.", expected=", ".join(fields))
    return cls(**arguments)


def field_value(cls: type[Any], name: str, value: Any, where: str) -> Any:
    """`value` as the field `name` of the dataclass `cls` holds it. Raises OptionError where its type is another."""
    return _typed(typing.get_type_hints(cls)[name], value, where, OptionError)


def _typed(kind: Any, value: Any, where: str, error: type[InputError]) -> Any:
    """`value` as `kind`, a JSON type or a container of such; raises `error` where it does not fit."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        *others, last = (candidate for candidate in inner if candidate is not type(None))
        for candidate in others:
            try:
                return _typed(candidate, value, where, error)
            except InputError:
                continue
        return _typed(last, value, where, error)  # of an option that may be None, what is wrong with its value
    elif origin is typing.Literal:
        if value in inner and type(value) in {type(item) for item in inner}:
            return value
        raise error(f"{where} cannot be {value!r}.", expected=nearest(str(value), map(str, inner)))
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            return tuple(_typed(k, item, where, error) for k, item in zip(kinds, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {k: _typed(inner[1], item, f"{where}.{k}", error) for k, item in value.items()}
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return from_dict(typing.cast("type[Any]", kind), value, where, error)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind is type(None):
        if value is None:
            return None
    elif isinstance(kind, type) and type(value) is kind:
        return value
    name = "a list" if origin is tuple else getattr(kind, "__name__", str(kind))
    raise error(f"{where} has the wrong type.", found=repr(value), expected=name)


def hidden_beside(path: Path, end: str) -> Path:
    """A hidden name for what is on its way to `path`: `path`'s own, or a hash of it where too long, and `end`."""
    name = f".{path.name}{end}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        suffixes = "".join(suffix for suffix in path.suffixes[-2:] if len(suffix) <= len(".tiff"))
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{suffixes}{end}"
    return path.with_name(name)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of what the disk refuses in the block that `path` cannot be written. Raises OutputError, DiskFull."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


@contextlib.contextmanager
def whole_file(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the name `path` when the block ends well, else it goes away.

    `path` so holds the old or the whole new content, whenever the process dies. keep: the name that the old file takes;
    a process that dies at the wrong moment leaves it under that name alone. Content and names are on the disk at the
    end. Raises DiskFull where there is no room, OutputError for another OSError.
    """
    partial = hidden_beside(path, ".partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def not_written(path: Path, error: OSError) -> OutputError:
    """The error for a file that could not be written: DiskFull where that was the reason."""
    found, kept = error.strerror or str(error), "a file that was there is as it was"
    if error.errno not in _NO_ROOM:
        return OutputError(f"{path} cannot be written; {kept}.", found=found)
    return DiskFull(
        f"The disk is full: {path} cannot be written; {kept}.", found=found,
        do="free some room there; a training goes on with --resume",
    )  # fmt: skip


def _sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk, where the system can."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems that sync no folders
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all. Raises OutputError."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, values: Mapping[str, Any], *, format: int) -> None:  # noqa: A002
    """Write `values` with a leading `format` number, atomically."""
    write_text(path, json.dumps({"format": format, **_plain(dict(values))}, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, *, format: int) -> dict[str, Any]:  # noqa: A002
    """Read what `write_json` wrote, without the number. Raises RunError if it is broken or of another format."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read.", found=str(error), expected="a file written by keepmap") from error
    found = values.pop("format", None) if isinstance(values, dict) else None
    if found != format:
        raise RunError(
            f"{path} is of another format.",
            found=f"format {found}",
            expected=f"format {format}",
            do="use the version of keepmap that wrote it",
        )
    return typing.cast("dict[str, Any]", values)
