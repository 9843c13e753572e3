"""The conda part: rattler downloads and links what is locked."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rattler.exceptions import InstallerError  # noqa: TID251 - this folder installs by it
from rattler.install import install  # noqa: TID251 - this folder installs by it
from rattler.package_cache import PackageCache, ValidationMode  # noqa: TID251 - this folder installs by it
from rattler.repo_data import RepoDataRecord  # noqa: TID251 - this folder installs by it

from jupyter_agent.environments.building.archives import swapped
from jupyter_agent.environments.telling import Teller
from jupyter_agent.errors import AgentError, Failed, InvalidInput, Unavailable

MEGABYTE = 1e6


async def install_all(
    records: list[RepoDataRecord],
    prefix: Path,
    *,
    packages: Path,
    distrust: bool,
    reporter: Reporter,
    client: Any = None,
) -> None:
    """Install the records at ``prefix``; ``packages`` is the cache of extracted ones.

    ``distrust``: each cached file is held against its sha256, and a package with a changed one is extracted anew; it
    takes 0.2 s for a set of 12,000 files. Else a package that misses a file is found, which costs nothing: files are
    written into that folder by rattler alone, and those of another's prefix that share them are watched by its
    fingerprint. Raises the ``AgentError`` that explains it.
    """
    mode = ValidationMode.full() if distrust else ValidationMode.fast()
    try:
        await install(
            records,
            prefix,
            package_cache=PackageCache.new_layered([packages], cache_origin=False, validation_mode=mode),
            installed_packages=[],
            execute_link_scripts=False,
            show_progress=False,
            client=client,
            reporter=reporter,
        )
    except (InstallerError, OSError) as error:
        raise explained(error) from error


class _Silent:
    """What rattler tells that is of no interest here."""

    def on_transaction_operation_start(self, operation: int) -> None:
        """Nothing to do."""

    on_transaction_operation_complete = on_transaction_operation_start

    def on_validate_start(self, cache_entry: int) -> int:
        """Nothing to do."""
        return cache_entry

    def on_validate_complete(self, validate_idx: int) -> None:
        """Nothing to do."""

    def on_download_completed(self, download_idx: int) -> None:
        """Nothing to do."""

    def on_unlink_start(self, operation: int, package_name: str) -> int:  # noqa: ARG002 - rattler's signature
        """Never: each prefix is new."""
        return operation

    def on_unlink_complete(self, index: int) -> None:
        """Never."""

    def on_post_link_start(self, package_name: str, script_path: str) -> int:  # noqa: ARG002 - rattler's signature
        """Never: scripts of packages are not run."""
        return 0

    def on_post_link_complete(self, index: int, success: bool) -> None:  # noqa: FBT001 - rattler's signature
        """Never."""

    def on_pre_unlink_start(self, package_name: str, script_path: str) -> int:  # noqa: ARG002 - rattler's signature
        """Never."""
        return 0

    def on_pre_unlink_complete(self, index: int, success: bool) -> None:  # noqa: FBT001 - rattler's signature
        """Never."""


class Reporter(_Silent):
    """Told by rattler, from threads of its own, how it goes; each token is a record's place in the transaction.

    ``admit`` sees a package that is extracted before its first file is linked: rattler waits for the answer.
    ``linked`` is called with the place of each that is linked.
    """

    def __init__(
        self, teller: Teller, total: int, *, admit: Callable[[str], None], linked: Callable[[str], None]
    ) -> None:
        self._teller = teller
        self._total = total
        self._admit = admit
        self._linked = linked
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._bytes: dict[int, int] = {}
        self._extracted = 0
        self._done = 0

    def on_transaction_start(self, total_operations: int) -> None:
        """It begins."""
        self._teller.show_progress("download", 0, total_operations or self._total)

    def on_populate_cache_start(self, operation: int, package_name: str) -> int:
        """A package is looked for in the cache."""
        self._names[operation] = package_name
        return operation

    def on_download_start(self, cache_entry: int) -> int:
        """It was not there."""
        return cache_entry

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:
        """Bytes of a package so far."""
        with self._lock:
            self._bytes[download_idx] = progress
            fetched = sum(self._bytes.values())
        of_it = f" of {total / MEGABYTE:.1f}" if total else ""
        name = self._names.get(download_idx, "")
        detail = f"{fetched / MEGABYTE:.1f} MB ({name}: {progress / MEGABYTE:.1f}{of_it} MB)"
        self._teller.show_progress("download", self._extracted, self._total, detail)

    def on_populate_cache_complete(self, cache_entry: int) -> None:
        """It is extracted."""
        name = self._names.get(cache_entry, "")
        self._admit(name)
        with self._lock:
            self._extracted += 1
            fetched = sum(self._bytes.values())
        detail = f"{fetched / MEGABYTE:.1f} MB" if fetched else ""
        self._teller.show_progress("download", self._extracted, self._total, detail)

    def on_link_start(self, operation: int, package_name: str) -> int:  # noqa: ARG002 - rattler's signature
        """Its files are linked."""
        return operation

    def on_link_complete(self, index: int) -> None:
        """All its files are linked."""
        with self._lock:
            self._done += 1
        if self._extracted == self._total:
            self._teller.show_progress("link", self._done, self._total)
        self._linked(self._names.get(index, ""))

    def on_transaction_complete(self) -> None:
        """All is there."""
        self._teller.show_progress("link", self._total, self._total)


MISMATCH = re.compile(
    r"hash mismatch when extracting (?P<url>\S+) to .*?: expected (?P<locked>[0-9a-f]+), got (?P<found>[0-9a-f]+)"
)

SENTENCES: tuple[tuple[str, type[AgentError], str], ...] = (
    (
        r"No space left on device|os error 28|[Qq]uota",
        Failed,
        "There is no space left for the environment ({cause}): free some, or run `jupyter-agent env gc`.",
    ),
    (
        r"Permission denied|Read-only file system|os error (?:13|30)\b",
        Failed,
        "The environment or the cache cannot be written ({cause}): make their folders writable.",
    ),
    (
        r"(?i)prefix.{0,80}(?:too long|longer)|placeholder.{0,80}long",
        InvalidInput,
        "The environment's path is too long for a package that has a path built in ({cause}): use a shorter home.",
    ),
    (
        r"File name too long|os error 36",
        InvalidInput,
        "The path of the environment is too long ({cause}): use a home with a shorter path.",
    ),
    (
        r"[Cc]hecksum|invalid Zip|[Uu]nexpected (?:end|EOF)|unpack outside|failed to unpack",
        Failed,
        "A package is damaged ({cause}): get it anew.",
    ),
    (
        r"no python version specified",
        InvalidInput,
        "A package is for Python, and the lock has no python ({cause}): add python to the environment's dependencies.",
    ),
    (
        r"Too many open files|os error 24\b",
        Unavailable,
        "Too many files are open: raise the limit (ulimit -n) and try again.",
    ),
)
"""How causes are told by the system or by rattler, and what they mean; the first that fits."""

NETWORK = re.compile(r"HTTP status|error sending request|[Cc]onnect|dns error|[Tt]imed? ?out|middleware")


def explained(error: BaseException) -> AgentError:
    """What an error of rattler's comes to, in one sentence."""
    from jupyter_agent.environments.indexes import without_credentials  # noqa: PLC0415 - at a failure alone

    text = without_credentials(str(error))
    if found := MISMATCH.search(text):
        return swapped(found["url"], found["found"], found["locked"])
    causes = [re.sub(r"^Caused by: *", "", line.strip()).rstrip(".") for line in text.splitlines() if line.strip()]
    cause = causes[-1] if causes else type(error).__name__
    place = f"{causes[0]}: " if len(causes) > 1 else ""
    for pattern, kind, sentence in SENTENCES:
        if re.search(pattern, text, re.DOTALL):
            return kind(sentence.format(cause=f"{place}{cause}"))
    if NETWORK.search(text):
        return _network(error)
    return Failed(f"The packages could not be installed: {place}{cause}.")


def _network(error: BaseException) -> AgentError:
    from jupyter_agent.environments.access import translated  # noqa: PLC0415 - at a failure alone

    said: AgentError = translated(error if isinstance(error, Exception) else Failed(str(error)))
    return said


def check_folder(packages: Path) -> None:
    """Make the folder of packages. Raises ``Failed`` when it cannot be written."""
    try:
        packages.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Failed(f"The cache {packages} cannot be made: {error.strerror or error}.") from error
    if not os.access(packages, os.W_OK | os.X_OK):
        raise Failed(f"The cache {packages} cannot be written: make it writable, or use another home.")
