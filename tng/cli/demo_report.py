"""How the demonstration speaks: headings, lines and tables on the terminal.

In: plain values.  Out: text through rich, with colours where the terminal has them.
Invariant: nothing that came from outside is read as markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

if TYPE_CHECKING:
    from tng.cli.demo_verdicts import PeerView

_STYLES: Final = {"pass": "green", "fail": "bold red", "skip": "yellow"}


class Report:
    """The demonstration's voice.

    Args:
        console: where it speaks; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)

    def banner(self, text: str) -> None:
        """A warning in a frame."""
        self._console.print(Panel(escape(text), style="bold yellow", expand=False), soft_wrap=False)

    def step(self, text: str) -> None:
        """A heading."""
        self._console.print(f"\n[bold]{escape(text)}[/bold]")

    def fact(self, label: str, text: str) -> None:
        """One line under a heading."""
        self._console.print(f"  {escape(label):<20} {escape(text)}")

    def good(self, text: str) -> None:
        """Something that is as it should be."""
        self._console.print(f"  [green]ok[/green]  {escape(text)}")

    def bad(self, text: str) -> None:
        """Something that was refused, or went wrong."""
        self._console.print(f"  [bold red]NO[/bold red]  {escape(text)}")

    def plain(self, text: str) -> None:
        """Text to copy."""
        self._console.print(escape(text))

    def verdict(self, peer: str, view: PeerView) -> None:
        """Every check of a verdict, in a table."""
        kind = f"{view.tee or 'unknown TEE'}{', SIMULATED' if view.simulated else ''}"
        result = "accepted" if view.accepted else f"refused: {view.code}"
        table = Table(title=escape(f"{peer} ({kind}): {result}"), title_justify="left")
        table.add_column("no.", justify="right")
        table.add_column("check")
        table.add_column("result")
        table.add_column("what was seen", overflow="fold")
        for check in view.checks:
            style = _STYLES.get(check.outcome, "")
            outcome = escape(check.outcome)
            table.add_row(
                str(check.number),
                escape(check.name),
                f"[{style}]{outcome}[/{style}]" if style else outcome,
                escape(check.detail),
            )
        self._console.print(table, soft_wrap=False)
