"""The `keepmap` command: its subcommands, its exit codes and how a failure is shown.

Does not know what the subcommands do, and imports nothing heavy: `keepmap --help` loads no torch.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from keepmap import __version__
from keepmap.cli.bench import bench
from keepmap.cli.check import check
from keepmap.cli.compare import compare
from keepmap.cli.convert import convert
from keepmap.cli.demo import demo
from keepmap.cli.evaluate import evaluate
from keepmap.cli.export import export
from keepmap.cli.import_weights import import_weights
from keepmap.cli.models import models
from keepmap.cli.plan import plan
from keepmap.cli.predict import predict
from keepmap.cli.serve import serve
from keepmap.cli.train import train
from keepmap.errors import Interrupted, KeepmapError, OptionError, OutputError, nearest
from keepmap.resources import process_rank

COMMANDS = (check, convert, plan, train, evaluate, compare, predict, serve, export, import_weights, bench, demo, models)


class _Commands(TyperGroup):
    """A group whose unknown commands are errors that name the nearest one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begins with. Raises OptionError."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            raise OptionError(
                f"keepmap has no command {name}.", expected=nearest(name, self.commands), do="keepmap --help"
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def keepmap(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    """From a folder of images and masks to a segmentation model that is trained, measured and used."""
    if version:
        print(f"keepmap {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


for _command in COMMANDS:
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: that of this process) and return its exit code.

    0 done, 1 the run failed, 2 the input or the arguments are wrong, 130 or 143 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(arguments)
    except KeepmapError as error:
        failure: KeepmapError = error
    except typer.TyperException as error:
        failure = _usage_failure(error)
    except OSError as error:
        failure = _file_failure(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    from keepmap.cli.terminal import show_failure

    if failure.everywhere and process_rank():
        return failure.exit_code
    show_failure(failure, "" if isinstance(failure, Interrupted) else type(failure).__name__)
    return failure.exit_code


def _run(arguments: Sequence[str] | None) -> int:
    words = None if arguments is None else list(arguments)
    code = typer.main.get_command(app).main(args=words, prog_name="keepmap", standalone_mode=False)
    if code == 128 + signal.SIGINT:
        raise Interrupted("Interrupted by Ctrl-C.", signal=signal.SIGINT)
    return int(code or 0)


def _terminate(number: int, frame: object) -> NoReturn:
    """Leave through every `with` and `finally`, so that no half-written file stays behind."""
    raise SystemExit(128 + number)


def _file_failure(error: OSError) -> OutputError:
    """What the file system refused, with the file's name; an error without one is our own mistake and raised again."""
    if error.filename is None:
        raise error
    return OutputError(
        f"{error.filename} cannot be used.",
        found=error.strerror or str(error),
        do="look at its name and its permissions",
    )


def _usage_failure(error: typer.TyperException) -> OptionError:
    """What the parser did not accept, in the form of all other failures."""
    context = getattr(error, "ctx", None)
    summary = error.message if hasattr(error, "option_name") else error.format_message()
    failure = OptionError(summary.rstrip(".") + ".", do=f"{context.command_path if context else 'keepmap'} --help")
    wrong = getattr(error, "option_name", None)
    if context is not None and wrong is not None:
        names = [name for parameter in context.command.params for name in parameter.opts] + context.help_option_names
        failure.expected = nearest(wrong, [name for name in names if name.startswith("--")])
        if not wrong.startswith("--"):
            failure.do += f"; a file whose name begins with a dash is written ./{wrong}..."
    return failure
