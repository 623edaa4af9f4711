"""A folder that appears once it is complete."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from panoptube.errors import UserError

LOCK = ".lock"
"""In a folder that is being filled: held by the process that does it, or else the folder is abandoned."""

REFUSED = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,  # such as 4 GB on FAT
    errno.EIO,
)
"""What disks answer that can't, or may not, be written."""


@contextmanager
def new_folder(out: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `out` at the end, see `part_of`; an exception leaves nothing of it.

    Args:
        out: the folder to make.
        overwrite: whether a folder that is there already is replaced, once the new one is complete.

    Raises:
        UserError: `out` is a file, holds something and `overwrite` is off, or can't be written, see
            `disk_errors`.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(f"{out} is not empty; choose another folder, or say to overwrite it")
    with disk_errors(out), part_of(out) as part:
        yield part


@contextmanager
def part_of(out: Path) -> Iterator[Path]:
    """`.NAME.PID.part` beside `out`, to fill; becomes `out` at the end, whatever is there.

    An exception leaves nothing of it. What a process that was killed left of its own goes first.

    Raises:
        OSError: it can't be made, or can't be renamed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        with suppress(Timeout, OSError), FileLock(left / LOCK, timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        with FileLock(part / LOCK):
            yield part
        (part / LOCK).unlink(missing_ok=True)
        install(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """What the disk refuses inside is reported as the user's: `out` can't be written. Other errors pass.

    Raises:
        UserError: in place of an OSError: the disk is full or broken, or nothing may be written there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED:
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
