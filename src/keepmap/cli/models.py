"""`keepmap models`: the networks there are, and one of them explained level by level.

Knows the shell's parameters and the tables only; `keepmap.list_models` and `keepmap.describe_network` do the work.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

import keepmap
from keepmap.cli.parameters import Quiet, parse_extent, parse_settings
from keepmap.errors import OptionError

if TYPE_CHECKING:
    from keepmap.networks.describe import LevelRow
    from keepmap.networks.network import Network

_COLUMNS = 80


def models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="the network to explain")] = None,
    size: Annotated[str, typer.Option("--size", metavar="HxW", help="height and width in pixels")] = "512x512",
    channels: Annotated[int, typer.Option("--channels", min=1, help="channels of the images")] = 3,
    classes: Annotated[int, typer.Option("--classes", min=2, help="number of classes")] = 2,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="option of the network, such as widths=16,32,64 (a list of one: widths=16,)",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """List the networks, or explain one of them level by level.

    Each level with its extent, padding, channels, reach, and memory in inference and in training.
    """
    if name is None:
        if settings:
            raise OptionError(f"--set {settings[0]} needs the NAME of a network.", do="keepmap models NAME --set ...")
        _show_list(quiet)
        return
    extent, options = parse_extent(size), parse_settings(settings or [])
    rows = keepmap.describe_network(name, size=extent, channels=channels, classes=classes, **options)
    _show_levels(f"{name} at {extent[0]}x{extent[1]}", rows)
    if not quiet:
        from keepmap.networks.describe import sketch

        _show_totals(sketch(name, channels=channels, classes=classes, options=options), extent)


def _show_list(quiet: bool) -> None:
    from rich.text import Text

    from keepmap.cli.tables import make_table
    from keepmap.cli.terminal import show
    from keepmap.networks.encoders import ENCODERS
    from keepmap.networks.timm_encoder import PREFIX
    from keepmap.units import in_thousands
    from keepmap.weights.published import IMAGENET, SEGMENTATION

    table = make_table()
    table.add_column("name", no_wrap=True)
    for column in ("parameters", "stride", "reach px"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("summary", overflow="fold")
    for row in keepmap.list_models():
        before, after = row.reach
        table.add_row(row.name, in_thousands(row.parameters), str(row.stride), f"{before}/{after}", Text(row.summary))
    encoders = fill(f"encoders  {', '.join((*ENCODERS, f'{PREFIX}NAME'))}", _COLUMNS, subsequent_indent=" " * 10)
    show(table, f"\n{encoders}")
    published = {**IMAGENET, **SEGMENTATION}
    tried = [name for name, entry in published.items() if entry.fetched]
    untried = [name for name, entry in published.items() if not entry.fetched]
    unverified = f"unverified, for no test has fetched them: {', '.join(untried)}"
    show(f"weights   {', '.join(tried)}")
    show(fill(unverified, _COLUMNS, initial_indent=" " * 10, subsequent_indent=" " * 10))
    if not quiet:
        show("keepmap models NAME --size 361x479 explains one")


def _show_levels(title: str, rows: list[LevelRow]) -> None:
    from keepmap.cli.tables import make_table
    from keepmap.cli.terminal import show
    from keepmap.units import in_bytes

    table = make_table(f"{title}, float32, bytes of one image")
    columns = ("level", "extent", "padding", "channels", "reach", "skip", "inference", "training")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        pairs = (f"{row.size[0]}x{row.size[1]}", f"{row.padding[0]}+{row.padding[1]}")
        counts = (row.skip_bytes, row.inference_bytes, row.training_bytes)
        reach = f"{row.reach[0]}/{row.reach[1]}"
        table.add_row(str(row.level), *pairs, str(row.channels), reach, *map(in_bytes, counts))
    table.add_section()
    skips, kept = sum(row.skip_bytes for row in rows), sum(row.training_bytes for row in rows)
    table.add_row("total", *[""] * 4, in_bytes(skips), "", in_bytes(kept), style="bold")
    show(table)


def _show_totals(network: Network, extent: tuple[int, int]) -> None:
    from keepmap.cli.terminal import show
    from keepmap.networks.describe import multiply_adds, parameters, peak_bytes
    from keepmap.units import in_bytes, in_thousands

    before, after = network.reach
    forward, both = peak_bytes(network, extent), peak_bytes(network, extent, training=True)
    show(
        f"\nparameters   {in_thousands(parameters(network))}",
        f"arithmetic   {in_thousands(multiply_adds(network, extent))} multiply-adds a forward pass",
        f"peak memory  {in_bytes(forward)} in inference, {in_bytes(both)} in training, weights not counted",
        f"reach        {before} px before and {after} px after an output pixel, along each axis",
    )
    if not network.local:
        show("local        no: some layers see the whole image, so tiles are not exact")
    for line in network.size_note(extent):
        show(f"sizes        {line}")
