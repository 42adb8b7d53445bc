"""What a prediction was made with and how far it is: OUT/prediction.jsonl, and a file beside each image under way.

Knows names and numbers; neither pixels nor networks.

The first line of prediction.jsonl says what computes and how; each image that is whole adds one. A job that goes on
takes what stands there if all of that is the same and the image was not touched since. A hidden file beside the mask of
a large image says how far it is.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepmap.config import from_dict, hidden_beside, not_written, read_json, to_dict, write_json, write_text
from keepmap.data.sinks import hidden_file
from keepmap.errors import InputError, OutputError, RunError
from keepmap.inference.jobs import Job
from keepmap.inference.way import Position, Way
from keepmap.options import PredictOptions

NAME = "prediction.jsonl"
_FORMAT = 1


@dataclass(frozen=True)
class State:
    """How far a large image is. written: pixels of the mask. sums: of their probabilities (K, 3), see `review`."""

    way: Way
    position: Position
    written: int
    sums: Any = None


class Record:
    """The file OUT/prediction.jsonl.

    about: what decides the bytes of the outputs beside `options`, as JSON has it. options.resume: go on with what is
    there, if anything is. Without it all is predicted, and lines of the same prediction on other images stay.
    replaces: whether the file that was there is of another prediction and goes.
    Raises OutputError where that is to be gone on with, or where the file cannot be written; RunError where it is none.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], options: PredictOptions) -> None:
        self._file, self._resume = out / NAME, options.resume
        asked = {name: value for name, value in to_dict(options).items() if name != "resume"}
        self._about = json.loads(json.dumps({"format": _FORMAT, **about, "options": asked}))
        self._done: dict[str, dict[str, Any]] = {}
        lines = _lines(self._file)
        images = {line["image"]: line for line in lines[1:]}
        if options.resume and lines:
            self._require_same(lines[0])
            self._done = images
        self.replaces = bool(lines) and lines[0] != self._about
        self._begun = bool(lines) and not self.replaces
        if self._begun:
            write_text(self._file, "".join(map(_text, (self._about, *images.values()))))
            return
        try:
            self._file.unlink(missing_ok=True)  # it is there from the first image on
        except OSError as error:
            raise not_written(self._file, error) from error

    def finished(self, job: Job) -> list[Any] | None:
        """The table rows of an image that is whole; None if it has to be predicted."""
        line = self._done.get(str(job.image))
        paths = {str(path): _stamp(path) for path in job.outputs}
        if line is None or line["stamp"] != _stamp(job.image) or line["outputs"] != paths or None in paths.values():
            return None
        return [tuple(row) for row in line["rows"]]

    def sums(self, job: Job) -> Any:
        """What an earlier job `add`ed beside the rows of an image; None where it did not."""
        return self._done.get(str(job.image), {}).get("sums")

    def add(self, job: Job, rows: Sequence[Any], sums: Sequence[Any] | None = None) -> None:
        """An image is whole. rows: of the table; sums: of its probabilities, see `review`. Raises OutputError."""
        outputs = {str(path): _stamp(path) for path in job.outputs}
        line = {"image": str(job.image), "stamp": _stamp(job.image), "outputs": outputs, "rows": rows, "sums": sums}
        try:
            with self._file.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write("" if self._begun else _text(self._about))
                file.write(_text(line))
        except OSError as error:
            raise not_written(self._file, error) from error
        self._begun = True
        self.forget(job)

    def begun(self, job: Job) -> State | None:
        """How far an image is that was stopped on its way; None if it has to begin."""
        file = _state_file(job)
        hidden = [hidden_file(path) for path in (job.mask, job.probabilities) if path is not None]
        if not self._resume or not file.exists() or not all(path.exists() for path in hidden):
            return None
        try:
            values = read_json(file, format=_FORMAT)
            key, way, position, written = (values[name] for name in ("key", "way", "position", "written"))
            place = from_dict(Way, way, str(file)), from_dict(Position, position, str(file))
            state = State(*place, int(written), values["sums"])
        except (InputError, KeyError, TypeError, ValueError):
            return None
        return state if key == self._key(job) else None

    def save(self, job: Job, state: State) -> None:
        """An image is so far; what `state` says is written has to be on the disk."""
        write_json(_state_file(job), {"key": self._key(job), **vars(state)}, format=_FORMAT)

    def forget(self, job: Job) -> None:
        """An image is to begin anew, or cannot be predicted."""
        _state_file(job).unlink(missing_ok=True)

    def _key(self, job: Job) -> Any:
        return [self._about, str(job.image), _stamp(job.image)]

    def _require_same(self, found: Mapping[str, Any]) -> None:
        names = sorted(set(found) | set(self._about))
        for name in names:
            if found.get(name) != self._about.get(name):
                raise OutputError(
                    f"{self._file} is of another prediction, which cannot go on with what is asked for now.",
                    found=f"{name}: {_short(found.get(name), self._about.get(name))}",
                    expected=_short(self._about.get(name), found.get(name)),
                    do="ask for the same, or leave --resume out to begin anew",
                )


def _lines(file: Path) -> list[dict[str, Any]]:
    """The lines that are whole; none where there is no file. Raises RunError where it is none of ours, OutputError."""
    if not file.exists():
        return []
    found = []
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise not_written(file, error) from error
    head = json.dumps({"format": _FORMAT})[:-1]
    if "\n" not in text and (text.startswith(head) or head.startswith(text)):
        return []  # it was stopped in its first line
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    if not found or not isinstance(found[0], dict) or found[0].get("format") != _FORMAT:
        raise RunError(f"{file} is not what keepmap predict writes.", do="choose another -o OUT, or remove it")
    return found


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _stamp(path: Path) -> list[int] | None:
    """Size and time of the last change of a file or folder; None if there is none."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return [0 if path.is_dir() else found.st_size, found.st_mtime_ns]
    return None


def _state_file(job: Job) -> Path:
    return hidden_beside(job.mask, ".state")


def _short(values: Any, others: Any) -> str:
    """A value of the first line, of several only those that differ."""
    if isinstance(values, dict) and isinstance(others, dict):
        return ", ".join(f"{name} {values[name]}" for name in values if values[name] != others.get(name)) or "without"
    return str(values)
