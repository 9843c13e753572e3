"""How conda's channels are reached from here, for the child that solves and installs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyter_agent.environments.access.translating import translated

if TYPE_CHECKING:
    from rattler import Channel, Gateway  # noqa: TID251 - this is environments/
    from rattler.networking import Client  # noqa: TID251 - the same

    from jupyter_agent.environments.work.jobs import Settings

RETRIES = 3


@dataclass(frozen=True)
class Access:
    """What is configured; made once by each child."""

    settings: Settings

    @classmethod
    def read(cls, settings: Settings, environ: Mapping[str, str] | None = None) -> Access:
        """What this machine is configured to. Raises ``InvalidInput`` when a file of it cannot be used."""
        del environ
        return cls(settings)

    def channels(self, names: Sequence[str]) -> list[Channel]:
        """The channels that are meant by names or URLs as a file writes them, without credentials in their URLs.

        Raises ``InvalidInput`` for what is no channel's name.
        """
        from rattler import Channel  # noqa: PLC0415, TID251 - environments/; not in the parent

        try:
            return [Channel(name) for name in names]
        except Exception as error:
            raise translated(error) from error

    async def check(self, channels: Sequence[Channel]) -> None:
        """See that the channels answer; known within seconds, all are asked at once.

        Raises ``NoChannel`` when none does, ``Unavailable`` when some do not.
        """

    def client(self) -> Client:
        """What rattler fetches with."""
        from rattler.networking import Client  # noqa: PLC0415, TID251 - the same

        return Client.default_client(max_retries=RETRIES)

    def gateway(self) -> Gateway:
        """What rattler reads the channels' indexes with; they are kept below the cache."""
        from rattler import Gateway  # noqa: PLC0415, TID251 - the same

        return Gateway(cache_dir=self.settings.cache / "repodata", client=self.client())
