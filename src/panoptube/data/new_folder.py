"""A folder that appears once it is complete."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from panoptube.errors import UserError


@contextmanager
def new_folder(out: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, beside `out`, which becomes `out` at the end; an exception leaves nothing of it.

    Args:
        out: the folder to make.
        overwrite: whether a folder that is there already is replaced, once the new one is complete.

    Raises:
        UserError: `out` is a file, holds something and `overwrite` is off, or can't be made; or the disk is
            full, see `disk_errors`.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(f"{out} is not empty; choose another folder, or say to overwrite it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"can't write to {out.parent}: {error.strerror}; choose another folder") from error
    try:
        with disk_errors(out):
            yield unfinished
            unfinished.chmod(0o755)
            install(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """What the disk refuses inside is reported as the user's: `out` can't be written. Other errors pass.

    Raises:
        UserError: in place of an OSError: the disk is full, or nothing may be written there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise UserError(
            f"{out} can't be written: {error.strerror}; make room or name another folder"
        ) from error


def install(part: Path, out: Path) -> None:
    """Gives the complete folder `part` the name `out`; an earlier one goes only after that.

    Raises:
        OSError: it can't be renamed; an earlier one is as it was.
    """
    if not out.exists():
        part.rename(out)
        return
    old = part.with_name(part.name + ".old")
    out.rename(old)
    try:
        part.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)
