"""What one would write with py-rattler alone: a lock's records, installed. Arguments: lock, prefix, cache of packages.

The cache is validated as our builder validates it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from rattler import LockFile, install
from rattler.package_cache import PackageCache, ValidationMode


async def main(lock: Path, prefix: Path, packages: Path) -> None:
    environment = LockFile.from_path(lock).default_environment()
    assert environment is not None
    (platform,) = environment.platforms()
    records = environment.conda_repodata_records_for_platform(platform)
    assert records
    cache = PackageCache.new_layered([packages], cache_origin=False, validation_mode=ValidationMode.fast())
    await install(records, prefix, package_cache=cache, execute_link_scripts=False, show_progress=False)


asyncio.run(main(*map(Path, sys.argv[1:4])))
print("done", flush=True)
os._exit(0)  # its own end crashes now and then
