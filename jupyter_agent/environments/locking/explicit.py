"""Packages named by their URLs: what a lock says of them beyond that, found in their channel or in themselves."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from rattler import BuildString, PackageRecord, RepoDataRecord  # noqa: TID251 - this is environments/
from rattler.package_streaming import download_to_path  # noqa: TID251 - the same

from jupyter_agent.environments.access import Access, translated
from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.environments.locking.solving import Solver
from jupyter_agent.environments.specs import Explicit
from jupyter_agent.environments.telling import Teller
from jupyter_agent.errors import AgentError, InvalidInput, Unavailable


@dataclass(frozen=True)
class Packages:
    """Finds out about packages; ``solver`` knows the channels' indexes, ``access`` fetches."""

    solver: Solver
    access: Access
    tell: Teller

    async def listed(self, packages: Sequence[Explicit], platform: str) -> list[RepoDataRecord]:
        """A record with md5 for each package of an explicit list, sorted by name.

        Raises ``InvalidInput`` where a hash is another than the list says, and what fetching raises.
        """
        known = await self._known(packages, platform)
        found = []
        for done, package in enumerate(packages):
            self.tell.show_progress("solve", done, len(packages), package.parts[0])
            found.append(await self._record(package, known))
        return sorted(found, key=lambda record: record.name.normalized)

    async def hashed(self, records: Iterable[RepoDataRecord]) -> list[RepoDataRecord]:
        """The records, with an md5 each: what the channel does not say is found by fetching the package."""
        return [
            record if record.md5 is not None else await self._fetched(str(record.url), record) for record in records
        ]

    async def _known(self, packages: Sequence[Explicit], platform: str) -> dict[tuple[str, str], RepoDataRecord]:
        """What the channels say of these packages, by channel and file; less where one cannot be read."""
        found: dict[tuple[str, str], RepoDataRecord] = {}
        by_channel: dict[str, list[Explicit]] = {}
        for package in packages:
            by_channel.setdefault(package.channel, []).append(package)
        for url, ones in by_channel.items():
            try:
                channels = self.access.channels([url])
                await self.access.check(channels)
                names = sorted({one.parts[0] for one in ones})
                records = await self.solver.records(names, platform, channels)
            except AgentError as error:
                self.tell.note(f"What {without_credentials(url)} says of its packages cannot be read: {error}")
                continue
            found.update({(url, f"{record.subdir}/{record.file_name}"): record for record in records})
        return found

    async def _record(self, package: Explicit, known: Mapping[tuple[str, str], RepoDataRecord]) -> RepoDataRecord:
        file = unquote(package.url.rpartition("/")[2])
        record = known.get((package.channel, f"{package.subdir}/{file}"))
        if record is not None:
            _compare(package, record)
            if record.md5 is None and package.md5:
                record.md5 = bytes.fromhex(package.md5)
            return (await self.hashed([record]))[0]
        if package.md5:
            return _by_its_name(package)
        fetched = await self._fetched(package.url, None)
        _compare(package, fetched)
        return fetched

    async def _fetched(self, url: str, record: RepoDataRecord | None) -> RepoDataRecord:
        """The record of a package that is fetched, or ``record`` with the hashes of what was fetched."""
        with tempfile.TemporaryDirectory(prefix="jupyter-agent-lock-") as scratch:
            parts = urlsplit(url)
            file = Path(scratch) / unquote(parts.path.rpartition("/")[2])
            if parts.scheme == "file":
                file = Path(url2pathname(parts.path))
            else:
                self.tell.note(f"Fetching {file.name}, for its hash is not known")
                await self._fetch(url, file)
            try:
                found = await RepoDataRecord.from_package_archive(file) if record is None else record
                md5, sha256 = await asyncio.to_thread(_hashes, file)
            except Exception as error:
                raise Unavailable(
                    f"{without_credentials(url)} cannot be read as a package ({' '.join(str(error).split())}): check "
                    "the URL."
                ) from error
        if found.sha256 not in (None, sha256):
            raise InvalidInput(
                f"{without_credentials(url)} is not the file that its channel's index names (by sha256)."
            )
        found.md5, found.sha256, found.url = md5, sha256, url
        return found

    async def _fetch(self, url: str, file: Path) -> None:
        """Fetch a package. Raises ``AgentError``."""
        if self.access.offline:
            raise Unavailable(
                f"The hash of {file.name} is not known and jupyter_agent is offline: write URL#MD5 into the list."
            )
        try:
            channel, _, rest = url.rpartition("/")[0].rpartition("/")
            channels = self.access.channels([channel])
            await self.access.check(channels)
            public = f"{channels[0].base_url.rstrip('/')}/{rest}/{url.rpartition('/')[2]}"
            await download_to_path(self.access.client([public]), public, file)
        except Exception as error:
            raise translated(error) from error


def _hashes(file: Path) -> tuple[bytes, bytes]:
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").digest()
        opened.seek(0)
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).digest(), sha256


def _compare(package: Explicit, record: RepoDataRecord) -> None:
    """Raise ``InvalidInput`` when the list has another hash than the package."""
    for kind, said, known in (("md5", package.md5, record.md5), ("sha256", package.sha256, record.sha256)):
        if said and known is not None and known.hex() != said.lower():
            raise InvalidInput(
                f"{package.parts[0]} has the {kind} {said} in the list, but {known.hex()} in its channel: one of the "
                "two was changed; take the list from where the environment is right."
            )


def _by_its_name(package: Explicit) -> RepoDataRecord:
    """What the list alone says."""
    name, version, build = package.parts
    record = PackageRecord(
        name,
        version,
        BuildString(build),
        0,
        package.subdir,
        md5=bytes.fromhex(package.md5),
        sha256=bytes.fromhex(package.sha256) if package.sha256 else None,
    )
    return RepoDataRecord(record, unquote(package.url.rpartition("/")[2]), package.url, f"{package.channel}/")
