"""The verdict table on the terminal; plain text of a fixed width when piped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from separatrix.lab.document import extent, flat, interval, number, region, rounded, summary

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

_STYLES = {"holds": "green", "fails": "red", "undecided": "yellow"}
_PIPED_WIDTH = 120
_TABLE_WIDTH = 100  # a narrower table would break the statements into single words


def print_verdicts(document: dict[str, Any], stream: TextIO) -> None:
    """Print what was measured for each claim, its verdict and that of its control, and a line that counts them."""
    from rich.console import Console

    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _PIPED_WIDTH)
    if document["claims"]:
        console.print(_table(document, stream.isatty()) if console.width >= _TABLE_WIDTH else _list(document))
    if document["claims"]:
        console.print(f"{summary(document['claims'])}.", soft_wrap=True, markup=False)
    _print_quantities(document.get("quantities", []), console)
    for claim in document["claims"]:
        if claim["verdict"] == "undecided" and claim["members_needed"]:
            console.print(f"{claim['id']} would be decided with about {rounded(claim['members_needed'])} members.")


def _print_quantities(quantities: list[dict[str, Any]], console: Console) -> None:
    """One line for each quantity: its only value, or the range of its values."""
    for quantity in quantities:
        unit = f" {quantity['unit']}" if quantity["unit"] else ""
        over = f" over {' and '.join(quantity['dimensions'])}" if len(flat(quantity["estimate"])) > 1 else ""
        console.print(
            f"{quantity['name']}: {extent(quantity['estimate'])}{unit}{over} ({quantity['label']})",
            soft_wrap=True,
            markup=False,
        )


def _table(document: dict[str, Any], terminal: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # the ASCII box also survives logs and mail
    table = Table(title=Text(document["title"]), title_justify="left", box=box.SIMPLE_HEAD if terminal else box.ASCII2)
    table.add_column("claim", no_wrap=True)
    table.add_column("statement", ratio=1)
    for column in ("estimate", "interval", "accepted"):
        table.add_column(column, justify="right")
    table.add_column("verdict", no_wrap=True)
    table.add_column("control", no_wrap=True)
    for claim in document["claims"]:
        table.add_row(
            claim["id"],
            Text(claim["statement"]),
            number(claim["estimate"]),
            Text(interval(claim["interval"])),
            region(claim["threshold"]),
            _verdict(claim),
            _control(claim),
        )
    return table


def _list(document: dict[str, Any]) -> Group:
    """The same for a narrow terminal, one claim below the other."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    blocks: list[Text | Padding] = [Text(document["title"], style="italic")]
    for claim in document["claims"]:
        measured = (
            f"{number(claim['estimate'])} in {interval(claim['interval'])}, accepted {region(claim['threshold'])}"
        )
        blocks.append(Text.assemble(f"\n{claim['id']}  ", _verdict(claim), "  (control: ", _control(claim), ")"))
        blocks.append(Padding(Text(f"{claim['statement']}\n{measured}"), (0, 0, 0, 4)))
    return Group(*blocks, Text())


def _verdict(claim: dict[str, Any]) -> Text:
    from rich.text import Text

    return Text(claim["verdict"], style=f"bold {_STYLES[claim['verdict']]}")


def _control(claim: dict[str, Any]) -> Text:
    from rich.text import Text

    control = claim["control_verdict"] or "not run"
    # a control has done its duty when it fails
    return Text(control, style="" if control in ("fails", "not run") else "bold red")


def print_studies(rows: list[dict[str, Any]], stream: TextIO) -> None:
    """Print the studies that were found, with the reason for those that cannot be used."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    table.add_column("study", no_wrap=True)
    table.add_column("title", ratio=1)
    table.add_column("presets")
    for row in rows:
        if row["error"] is None:
            table.add_row(row["study"], Text(row["title"]), Text(", ".join(row["presets"])))
        else:
            table.add_row(row["study"], Text(f"cannot be used: {row['error']}", style="red"), "")
    console.print(table)
