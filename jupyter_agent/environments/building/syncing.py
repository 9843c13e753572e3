"""What was built outlasts a power cut."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def sync_all(*folders: Path) -> None:
    """Have all that was written to the file systems of these folders on the disk: ``syncfs`` alone, where there is one.

    ``os.sync`` would wait for what other programs write to other disks.
    """
    devices = {folder.stat().st_dev: folder for folder in folders}
    if sys.platform != "linux":
        os.sync()
        return
    library = ctypes.CDLL(None, use_errno=True)
    for folder in devices.values():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if library.syncfs(descriptor) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
        finally:
            os.close(descriptor)
