"""Locks that one process holds at a time, on a file of a disk. They end with the process, however it ends."""

import errno
import os
from pathlib import Path


class FileLock:
    """A lock on a file, which stays when the lock is closed, since others may wait for it."""

    def __init__(self, path: Path):
        """Make the file if it isn't there, and lock it.

        Args:
          path: of the file, in a folder that is there.

        Raises:
          BlockingIOError: another process, or another `FileLock`, has locked it.
          OSError: the file can't be opened for writing, isn't a regular file, or is on a disk without locks.
        """
        import filelock  # takes a tenth of a second

        self.path = path
        if not path.parent.is_dir():  # filelock would make it again, for instance that of an index that was moved away
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):  # a link would make a file elsewhere
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        # The lock belongs to the object, not to the thread that made it: any thread may close it.
        self._lock = filelock.FileLock(path, thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path)) from error
        self._noted = os.stat(path)

    def is_in_place(self) -> bool:
        """Return whether the file is still the one that was locked: whoever removes or replaces it lets others in."""
        try:
            return os.path.samestat(self._noted, os.stat(self.path))
        except OSError:
            return False

    def close(self) -> None:
        """Let others in."""
        self._lock.release()
