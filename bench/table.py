"""The table: what was measured, compared, and held against the targets.

In: results of a session.  Out: lines for a terminal, Markdown, or JSON.
Invariant: a target counts as met only if both values were measured and the ratio reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench.session import Measured, Results
from bench.systems import System
from bench.workloads import ADDED_P50, Quantity, Row, Workload

HEADINGS: Final = (
    *("workload", "quantity", "ours", "reference", "ratio", "target", "aim", "result"),
)

_LEFT: Final = {
    System.OURS_RAW: "ours raw",
    System.OURS_OHTTP_WORKERS: "ours, 2 workers",
    System.FORWARDER: "bare forwarder",
}
"""What stands in the column `ours` where a row has to say so."""

GENERATED: Final = "<!-- Made by `tools/bench --markdown`; do not edit by hand. -->"


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison.

    Attributes:
        workload: title of the workload.
        quantity: what is compared, with its unit, and between which systems if not the plain ones.
        ours: our median, or the bare forwarder's; None when it was not measured.
        reference: the reference's median; None when it was not measured.
        ratio: ours over the reference's; None where there is none.
        target: in words; "" for none.
        aim: in words; "" for none.
        result: "met", "aim met", "MISSED", "failed: ...", or "" where nothing is expected.
        digits: decimals of the two values.
    """

    workload: str
    quantity: str
    ours: float | None
    reference: float | None
    ratio: float | None
    target: str
    aim: str
    result: str
    digits: int

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of HEADINGS."""
        return (
            self.workload,
            self.quantity,
            _number(self.ours, self.digits),
            _number(self.reference, self.digits),
            _number(self.ratio, 2),
            self.target,
            self.aim,
            self.result,
        )


def make_lines(workloads: Sequence[Workload], results: Results) -> list[Line]:
    """Every row of every workload."""
    return [
        _line(workload, row, results[workload.name])
        for workload in workloads
        for row in workload.rows
    ]


def _line(workload: Workload, row: Row, measured: dict[System, Measured]) -> Line:
    quantity = row.quantity
    ours = _value(quantity, row.ours, measured)
    reference = _value(quantity, row.reference, measured)
    ratio = ours / reference if ours is not None and reference else None
    return Line(
        workload.title,
        f"{quantity.label}{_between(row)}",
        ours,
        reference,
        ratio,
        _bound(row, row.target),
        _bound(row, row.aim),
        _result(row, ours if row.is_absolute else ratio, measured),
        quantity.digits,
    )


def _value(quantity: Quantity, system: System, measured: dict[System, Measured]) -> float | None:
    if system not in measured:
        return None
    if quantity is not ADDED_P50:
        return measured[system].median(quantity.key)
    with_gateway = measured[system].median("p50_us")
    without = measured[System.DIRECT].median("p50_us")
    return None if with_gateway is None or without is None else with_gateway - without


def _between(row: Row) -> str:
    """Which systems, where they are not those of the workload's first rows."""
    names = [_LEFT[row.ours]] if row.ours in _LEFT else []
    if "multiplexed" in row.reference.value:
        names.append("reference multiplexed")
    return f" ({', '.join(names)})" if names else ""


def _bound(row: Row, bound: float | None) -> str:
    if bound is None:
        return ""
    sign = ">=" if row.quantity.more_is_better else "<="
    return f"{sign} {bound:g}" + ("" if row.is_absolute else "x")


def _result(row: Row, reached: float | None, measured: dict[System, Measured]) -> str:
    for system in (row.ours, row.reference):
        if system in measured and measured[system].failures:
            first = measured[system].failures[0].splitlines()[0]
            return f"{system.value} failed: {first}"
    if row.target is None or reached is None:
        return ""
    if row.aim is not None and _reaches(row, reached, row.aim):
        return "aim met"
    return "met" if _reaches(row, reached, row.target) else "MISSED"


def _reaches(row: Row, value: float, bound: float) -> bool:
    return value >= bound if row.quantity.more_is_better else value <= bound


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def dump_text(lines: Sequence[Line]) -> str:
    """The table for a terminal."""
    rows = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    texts = []
    title = ""
    for row in rows:
        shown = ("", *row[1:]) if row[0] == title else row
        title = row[0]
        cells = [
            cell.rjust(width) if 2 <= column <= 4 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(shown, widths, strict=True))
        ]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def dump_markdown(lines: Sequence[Line], facts: dict[str, str]) -> str:
    """The section of docs/BENCHMARKS.md: what was measured where, then the table."""
    parts = [GENERATED, ""]
    parts += [f"* {name}: {text}" for name, text in facts.items()]
    parts += ["", _markdown_row(HEADINGS), "|---|---|--:|--:|--:|---|---|---|"]
    title = ""
    for line in lines:
        cells = line.cells()
        parts.append(_markdown_row(("", *cells[1:]) if cells[0] == title else cells))
        title = cells[0]
    return "\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def dump_json(lines: Sequence[Line], facts: dict[str, str], results: Results) -> dict[str, object]:
    """Everything: facts, the table, and every single sample."""
    return {
        "facts": facts,
        "table": [asdict(line) for line in lines],
        "samples": {
            name: {system.value: asdict(measured) for system, measured in systems.items()}
            for name, systems in results.items()
        },
    }
