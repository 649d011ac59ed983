"""Counts of what was tried, and the table of them at the end of the tests."""

from collections.abc import Mapping

COLUMNS = ("tried", "nothing written", "while writing", "after the end", "resumed", "equal")
TABLE: dict[str, dict[str, int]] = {}


def count(row: str, *columns: str) -> None:
    """One more in these columns of the row."""
    for column in columns:
        assert column in COLUMNS
    add({row: dict.fromkeys(columns, 1)})


def add(table: Mapping[str, Mapping[str, int]]) -> None:
    """Add the counts of another table, of the same form as `TABLE`."""
    for row, counts in table.items():
        sums = TABLE.setdefault(row, dict.fromkeys(COLUMNS, 0))
        for column, more in counts.items():
            sums[column] += more


def lines() -> list[str]:
    """The table in Markdown, or nothing where nothing was counted."""
    if not TABLE:
        return []
    rows = [["", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    rows += [[row, *(str(counts[column]) for column in COLUMNS)] for row, counts in TABLE.items()]
    return [f"| {' | '.join(row)} |" for row in rows]
