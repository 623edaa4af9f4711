"""Results that print as tables."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from rich.table import Table

WIDTH = 120


class Printed:
    """`str` of a result is its tables, as text."""

    def tables(self) -> list[Table]:
        """For a rich console."""
        raise NotImplementedError

    def __str__(self) -> str:
        text = StringIO()
        console = Console(file=text, width=WIDTH, color_system=None)
        for table in self.tables():
            console.print(table)
        return text.getvalue()
