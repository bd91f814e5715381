# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are either the old ones or the new ones, whatever happens."""

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Give a file a new text, in UTF-8, so that it survives a crash; or OSError.

    Owner and mode stay, and a symbolic link stays one.  A new file is readable
    by its owner alone.
    """
    target = path.resolve()
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    # The directory may belong to somebody else, so no link is followed here.
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            if target.exists():
                before = target.stat()
                os.chown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, before.st_mode & 0o777)
            out.write(text.encode())
            out.flush()
            os.fsync(descriptor)
        fresh.replace(target)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # the kernel was told no more than a number
        fresh.unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
