"""What the command line shows besides progress: consoles and failures.

Styles are used on a terminal only; text that comes from outside is never read as markup.
"""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from keepmap.errors import KeepmapError

_PIPED_WIDTH = 100
_DETAILS = ("found", "expected", "do")


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr; where that is no terminal, its tables may be 100 columns wide."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in console._environ:
        console.width = _PIPED_WIDTH
    return console


def show(*parts: RenderableType) -> None:
    """Print texts and tables on stdout; plain text is wrapped on a terminal and left whole in a pipe."""
    console = make_console()
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str | Text) and not console.is_terminal)


def show_failure(failure: KeepmapError, title: str, *, stderr: bool = True, style: str = "bold red") -> None:
    """Print a failure in its found / expected / do form. title: what it is called, or nothing."""
    console = make_console(stderr=stderr)
    if not console.is_terminal:
        console.print(f"{title}: {failure}" if title else str(failure), soft_wrap=True)
        return
    console.print(Text.assemble((f"{title}: " if title else "", style), failure.summary))
    details = Table.grid(padding=(0, 1))
    details.add_column(width=11)
    details.add_column(overflow="fold")
    for label in _DETAILS:
        if text := getattr(failure, label):
            details.add_row(Text(f"  {label}", "dim"), Text(text))
    if details.row_count:
        console.print(details)
