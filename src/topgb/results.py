"""Results of public calls: as JSON values, readable when shown, and as a table of pandas where they are one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from topgb.errors import InputError, RecordError, install_extra

if TYPE_CHECKING:
    import pandas as pd

_LINE = 120
_MOST_ENTRIES = 6


class Result:
    """The base of dataclasses that public calls return; these are declared with `repr=False`."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values by name: what a command with `--json` prints."""
        return _of_fields(self)

    def __repr__(self) -> str:
        parts = [f"{name}={_short(value)}" for name, value in self.to_dict().items()]
        line = f"{type(self).__name__}({', '.join(parts)})"
        return (
            line if len(line) <= _LINE else line[: line.index("(") + 1] + "".join(f"\n    {p}," for p in parts) + "\n)"
        )


class Table(Result):
    """A result that is a table too."""

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """The columns of the table by name, all of one length."""
        raise NotImplementedError

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a DataFrame. Raises `InputError` if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise InputError(
                f"a DataFrame needs pandas, which is not installed here; {install_extra('pandas')}"
            ) from None
        return pandas.DataFrame(dict(self.columns()))


def plain(value: Any) -> Any:
    """`value` as JSON values: paths become texts, arrays and tuples lists, dataclasses and damaged records objects."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, RecordError):
        return {"file": value.path, "record": value.record, "offset": value.offset, "reason": value.reason}
    if is_dataclass(value) and not isinstance(value, type):
        return _of_fields(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _of_fields(value: Any) -> dict[str, Any]:
    return {field.name: plain(getattr(value, field.name)) for field in fields(value)}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | dict):
        shown = repr(value) if len(value) <= _MOST_ENTRIES else ""
        return shown if 0 < len(shown) <= _LINE else f"<{len(value):,} entries>"
    return repr(value)
