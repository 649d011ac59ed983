"""Counts of what was tried, and the table of them at the end of the tests."""

from collections import Counter, defaultdict

COLUMNS = ("tried", "nothing written", "while writing", "after the end", "resumed", "equal")
TABLE: dict[str, Counter] = defaultdict(Counter)


def count(row: str, *columns: str) -> None:
    """One more in these columns of the row."""
    for column in columns:
        assert column in COLUMNS
        TABLE[row][column] += 1


def lines() -> list[str]:
    """The table in Markdown, or nothing where nothing was counted."""
    if not TABLE:
        return []
    rows = [["", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    rows += [[row, *(str(counts[column]) for column in COLUMNS)] for row, counts in TABLE.items()]
    return [f"| {' | '.join(row)} |" for row in rows]
