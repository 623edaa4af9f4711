"""benchmarks/fuzz.py on a few examples; and it does find faults."""

from __future__ import annotations

from pathlib import Path

import pytest

import fuzz
from panoptube.errors import UserError


@pytest.mark.parametrize(("name", "examples"), [("PNG", 150), ("JSON", 150), ("weights", 12)])
def test_damaged_files_are_read_rightly_or_refused_in_one_line(
    name: str, examples: int, tmp_path: Path
) -> None:
    target = next(target for target in fuzz.targets(tmp_path) if target.name == name)
    outcomes = fuzz.fuzz(target, examples)
    assert outcomes.total() >= examples
    assert outcomes["refused"] > examples / 2


@pytest.mark.parametrize(
    "error",
    [IndexError("a"), AssertionError("wrong ids"), UserError("two\nlines")],
    ids=["fault", "wrong", "lines"],
)
def test_a_fault_is_found(error: Exception) -> None:
    def read(data: bytes) -> None:
        if data[:1] == b"x":
            raise error

    target = fuzz.Target("any", fuzz.damaged_bytes(b"x"), read, 1)
    with pytest.raises(AssertionError if isinstance(error, UserError) else type(error)):
        fuzz.fuzz(target, 50)
