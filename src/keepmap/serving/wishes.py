"""What a client wants to have of a prediction: its form, shapes and additions, from parameters and the Accept header.

Knows HTTP's words for it; computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keepmap.config import from_dict, to_dict
from keepmap.errors import OptionError, nearest
from keepmap.serving.refusals import refusal

FORMS = {
    "png": ("image/png", ".png"), "tiff": ("image/tiff", ".tif"), "json": ("application/json", ".json"),
    "npy": ("application/x-npy", ".npy"),
}  # fmt: skip
"""Name of a form -> its media type and suffix. npy: probabilities."""
SHAPES = ("none", "runs", "polygons")
INCLUDED = ("mask", "preview")
_SAME = ("*/*", "image/*", "")


@dataclass(frozen=True)
class Wish:
    """form: one of FORMS, or "same": the mask as `keepmap predict` writes it for such a file.

    shapes: of a JSON answer, see `answers`. include: what else is in it: the mask, a preview of the image. frame: which
    one of a file with several. ome: whether the file was called an OME-TIFF.
    """

    form: str = "same"
    shapes: str = "none"
    include: tuple[str, ...] = ()
    frame: int | None = None
    ome: bool = False

    def to_dict(self) -> dict[str, object]:
        """As JSON holds it."""
        return to_dict(self)


def read_wish(given: Mapping[str, str], accept: str, *, ome: bool = False) -> Wish:
    """The wish in parameters and an Accept header. Raises OptionError, and Refusal where no form is accepted."""
    known = ("as", "shapes", "include", "frame")
    for name in given:
        if name not in known:
            raise OptionError(f"The parameter {name} does not exist.", found=name, expected=nearest(name, known))
    form = given.get("as") or _accepted(accept)
    _one_of("as", form, ("same", *FORMS))
    shapes = given.get("shapes", "none")
    _one_of("shapes", shapes, SHAPES)
    include = tuple(word for word in given.get("include", "").split(",") if word)
    for word in include:
        _one_of("include", word, INCLUDED)
    frame = given.get("frame")
    if frame is not None and not (frame.isdecimal() and len(frame) < 10):
        raise OptionError(f"frame={frame} cannot be.", found=frame, expected="a number from 0")
    return Wish(form, shapes, include, None if frame is None else int(frame), ome)


def stored_wish(values: Mapping[str, object]) -> Wish:
    """What `to_dict` made JSON of."""
    return from_dict(Wish, values, "a job")


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise OptionError(f"{name}={value} does not exist.", found=value, expected=nearest(value, valid))


def _accepted(accept: str) -> str:
    """The form of the Accept header: the most wanted that there is."""
    wanted: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept.split(",")):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        try:
            wanted.append((-float(quality), place, kind))
        except ValueError:
            continue
    for order, _, kind in sorted(wanted):
        form = "same" if kind in _SAME else next((f for f, (media, _) in FORMS.items() if media == kind), None)
        if form is not None and order < 0:
            return form
    raise refusal(
        406, "There is no answer of this kind.", found=accept,
        expected=", ".join(media for media, _ in FORMS.values()),
    )
