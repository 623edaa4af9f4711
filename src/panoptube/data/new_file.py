"""A file that appears once it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from panoptube.errors import UserError


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to write, beside `path`, which becomes `path` at the end; an exception leaves `path` as it was.

    Raises:
        UserError: it can't be written.
    """
    part = path.with_name(path.name + ".part")
    with writing(path):
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a `new_file` in UTF-8; lines end as in `text`, on every system.

    Raises:
        UserError: it can't be written.
    """
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What fails inside is reported as the user's: `path` can't be written.

    Raises:
        UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror}; make room and run it again") from error
