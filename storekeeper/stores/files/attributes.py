"""Setting what an entry records on the file, directory or link that was made for it."""

from __future__ import annotations

import base64
import errno
import os

from storekeeper.stores.files.entries import ACLS, Entry, is_kept
from storekeeper.stores.files.rights import Rights


def apply(entry: Entry, where: int | str, rights: Rights) -> None:
    """Set owner, mode, extended attributes and times. `where` is a descriptor, or a path of which only the last name may be a link.

    In this order, because a change of owner takes set-user-ID bits and capabilities away. Raises OSError.
    """
    if rights.sets_owner(entry):
        if isinstance(where, int):
            os.chown(where, entry["uid"], entry["gid"])
        else:
            os.chown(where, entry["uid"], entry["gid"], follow_symlinks=False)
    if entry["type"] != "link":
        _drop_inherited(entry, where)
        os.chmod(where, rights.mode(entry))
    _set_xattrs(entry, where, rights)
    times = (entry["mtime_ns"], entry["mtime_ns"])
    if isinstance(where, int):
        os.utime(where, ns=times)
    else:
        os.utime(where, ns=times, follow_symlinks=False)


def _drop_inherited(entry: Entry, where: int | str) -> None:
    """A directory's default access list is given to everything made in it; only what is recorded may stay."""
    wanted = entry.get("xattrs", {})
    for name in ACLS.difference(wanted):
        try:
            os.removexattr(where, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise


def _set_xattrs(entry: Entry, where: int | str, rights: Rights) -> None:
    for name, value in entry.get("xattrs", {}).items():
        if not rights.sets_xattr(name):
            continue
        if isinstance(where, int):
            os.setxattr(where, name, base64.b64decode(value))
        else:
            os.setxattr(where, name, base64.b64decode(value), follow_symlinks=False)


def copy_directory(source: int, name: str, parent: int) -> None:
    """Make a directory with the owner, mode, access lists and times of another one. Raises OSError."""
    status = os.fstat(source)
    os.mkdir(name, 0o700, dir_fd=parent)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if os.geteuid() == 0:
            os.chown(descriptor, status.st_uid, status.st_gid)
        os.chmod(descriptor, status.st_mode & 0o7777)
        for attribute in filter(is_kept, os.listxattr(source)):
            os.setxattr(descriptor, attribute, os.getxattr(source, attribute))
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(descriptor)
