"""Cells and tables of results as text."""

from collections.abc import Iterable, Sequence
from statistics import stdev

from benchmarks.methods.scores import LEVEL, Cell, Difference, Table, difference, map_of

MISSING = "\u2013"
INTERVAL = f"{LEVEL:.0%} bootstrap intervals over seeds and queries"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def count(n: int, word: str) -> str:
    """Write a number and its noun: `1 seed`, `2 seeds`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def cell_text(cell: Cell | None, *, seeds: int, bold: bool = False, digits: int = 4, spread: bool = True) -> str:
    """Write a cell's mean and spread.

    Args:
      cell: scores by seed, if there are any.
      seeds: the number of seeds of the table; a cell with fewer says so.
      bold: whether the numbers are bold.
      digits: after the point.
      spread: whether the standard deviation follows the mean.
    """
    if not cell:
        return MISSING
    text = f"{map_of(cell):.{digits}f}"
    if spread and len(cell) > 1:
        text += f" ± {stdev(score.map for score in cell.values()):.{digits}f}"
    return (f"**{text}**" if bold else text) + (f" ({count(len(cell), 'seed')})" if len(cell) < seeds else "")


def difference_text(one: Difference | None, *, digits: int = 4) -> str:
    """Write a difference and its interval, in bold if that lies on one side of 0: `**+0.0065** (+0.0010 to +0.0120)`."""
    if one is None:
        return MISSING
    if one.low is None:
        return f"{one.mean:+.{digits}f} (one seed)"
    text = f"{one.mean:+.{digits}f}"
    return f"{f'**{text}**' if one.above or one.below else text} ({one.low:+.{digits}f} to {one.high:+.{digits}f})"


def against_text(table: Table, name: str, rival: str, bits: int) -> str:
    """Write a row's difference to another row at a code length; nothing for the row itself."""
    cells = [table.get(row, {}).get(bits, {}) for row in (name, rival)]
    return "" if name == rival else difference_text(difference(*cells)).replace("*", "")
