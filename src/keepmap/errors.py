"""The exception tree, and the one form in which every message is written: found, expected, do.

Knows nothing of images, networks or the command line, except the exit code each kind of failure stands for.

    KeepmapError              anything keepmap itself refuses or fails at           exit 1
    ├── InputError            the arguments or the input are wrong                  exit 2
    │   ├── OptionError       an unknown or contradictory option, name or value
    │   ├── DataError         an image, a mask or a folder of them
    │   ├── RunError          a RUN folder that is none, is broken or belongs to something else
    │   ├── OutputError       an output that cannot be written or would be overwritten
    │   │   └── DiskFull      no room for it, which is nobody's mistake             exit 1
    │   ├── ArtefactError     an exported file that is broken, foreign or too new
    │   ├── WeightsError      a file of weights that is broken, unsafe or of another network
    │   └── MissingPackage    an optional package that is not installed
    ├── DownloadError         weights that could not be fetched                     exit 1
    ├── TrainingError         training went wrong after it had begun                exit 1
    ├── OutOfMemory           the memory does not suffice for a step or a pass      exit 1
    ├── ContractError         a network breaks a promise that keepmap relies on     exit 1
    └── Interrupted           Ctrl-C or SIGTERM, after the state was saved          exit 130 or 143
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_SHOWN = 5


class KeepmapError(Exception):
    """A failure with a reason: what was found, what was expected, what to do about it.

    summary: one sentence that names the file or the option. The three details may be empty.
    everywhere: whether all processes of a training raise it, so that one of them shows it.
    """

    exit_code = 1
    everywhere = False

    def __init__(self, summary: str, *, found: str = "", expected: str = "", do: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.found = found
        self.expected = expected
        self.do = do

    def __str__(self) -> str:
        """The summary, then one aligned line for each detail that is not empty."""
        lines = [self.summary]
        for label in ("found", "expected", "do"):
            text = getattr(self, label)
            if text:
                lines.append(f"  {label:<9} {text}".replace("\n", "\n" + " " * 12))
        return "\n".join(lines)


class InputError(KeepmapError):
    """What the user handed over is wrong; nothing was changed."""

    exit_code = 2


class OptionError(InputError):
    """An option, a name or a value that does not exist or contradicts another."""


class DataError(InputError):
    """An image, a mask or a folder of them cannot be used as it is."""


class RunError(InputError):
    """A folder is no RUN, or a RUN that is broken or does not fit what was asked."""


class OutputError(InputError):
    """An output cannot be written, or writing it would destroy something."""


class DiskFull(OutputError):
    """There is no room for an output; a file that was there is as it was."""

    exit_code = 1


class ArtefactError(InputError):
    """An exported network cannot be used: its file is broken, foreign or too new for what is installed."""


class WeightsError(InputError):
    """A file of weights is broken, would run code, or belongs to another network."""


class MissingPackage(InputError):
    """An optional package is needed and not installed."""


class DownloadError(KeepmapError):
    """Published weights could not be fetched; nothing was left in the cache."""


class TrainingError(KeepmapError):
    """Training failed after it had begun; the RUN keeps the last good state."""


class OutOfMemory(KeepmapError):
    """The memory of a device does not suffice for a training step or a forward pass; what was saved stays whole."""


class ContractError(KeepmapError):
    """A network breaks a promise that keepmap relies on. clause: the promise, in a word."""

    def __init__(self, summary: str, *, clause: str = "", found: str = "", expected: str = "", do: str = "") -> None:
        super().__init__(summary, found=found, expected=expected, do=do)
        self.clause = clause


class Interrupted(KeepmapError):
    """A signal stopped the work after its state was saved. signal: 2 (Ctrl-C) or 15 (SIGTERM)."""

    everywhere = True

    def __init__(self, summary: str, *, signal: int = 2, do: str = "") -> None:
        super().__init__(summary, do=do)
        self.exit_code = 128 + signal


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that names the valid spelling closest to `name`, or lists them all when none is close."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return "one of " + ", ".join(names)


def first_few(texts: Sequence[str], separator: str = ", ") -> str:
    """The first five of `texts` joined by `separator`, and how many more there are."""
    more = len(texts) - _SHOWN
    gap = "\n" if separator == "\n" else " "
    return separator.join(texts[:_SHOWN]) + (f"{gap}and {more} more" if more > 0 else "")
