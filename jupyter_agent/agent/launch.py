"""The one funnel: every run, whoever asks for it, starts here.

Rights to the package, the token the run gets, its parameters, environment, working copy and limits are settled here,
once, for the API, the CLI and queue commands alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_agent import processes, runtimes
from jupyter_agent.agent.environments import KIND as MAKING
from jupyter_agent.agent.environments import Makings, offering
from jupyter_agent.agent.link import Link
from jupyter_agent.agent.requests import RunRequest, abridged, restored
from jupyter_agent.agent.senders import find_package, require_package
from jupyter_agent.agent.variables import harmless
from jupyter_agent.errors import Failed, InvalidInput, NotFound, ServerRefused
from jupyter_agent.folders import copy_tree
from jupyter_agent.home import Home, write_private
from jupyter_agent.packages import Bounds, Manifest, Versions, entry_point, pack, package_root, unpack
from jupyter_agent.runs import Limits, Prepared, PrepareFn, Run, Supervisor
from jupyter_agent.state import Claim, RunRow, RunState, State, new_run_id
from jupyter_agent.waiting import to_its_end

__all__ = ["Launcher", "RunRequest"]


@dataclass(frozen=True)
class Source:
    """Where a run's files come from: a package's document, or a path."""

    name: str
    language: str
    version: str = ""
    document: Mapping[str, Any] | None = None
    folder: Path | None = None
    entry: Path | None = None


@dataclass(frozen=True)
class Files:
    """A working folder and the file in it that is started; ``private``: it is a copy of the run's own.

    ``manifest`` and ``source`` are as in ``runtimes.Task``.
    """

    folder: Path
    entry: Path
    language: str
    private: bool = False
    manifest: Manifest | None = None
    source: str = ""


class Launcher:
    """Turns requests into runs.

    ``grant_agent_token`` names the packages (ids, or ``*``) that get the agent's token; ``limits`` are those of runs
    that ask for none.
    """

    def __init__(
        self,
        home: Home,
        *,
        link: Link,
        supervisor: Supervisor,
        state: State,
        site: runtimes.Site,
        versions: Versions,
        makings: Makings,
        grant_agent_token: frozenset[str],
        limits: Limits,
    ) -> None:
        self._home = home
        self._link = link
        self._supervisor = supervisor
        self._state = state
        self._site = site
        self._versions = versions
        self._makings = makings
        self._granted = grant_agent_token
        self._limits = limits

    async def launch(self, request: RunRequest) -> Run:
        """The run, on disk before this returns. Raises what is wrong with the request; nothing is left then.

        With the key of an earlier request it is that one's run, which may be over.
        """
        claim = await asyncio.to_thread(checked, request)  # parameters may be megabytes
        if claim is not None and (known := await self._supervisor.claimed(claim)) is not None:
            return known
        source = await self._find(request)
        if source.language:
            runtimes.runtime_for(source.language)  # refused now rather than after it has waited for its turn
        await self._check_environment(request, source)
        if source.document and not request.prepare_only:
            asked = runtimes.needs_of_document(source.document)
            await runtimes.check_needs(asked, self._site.tools, package=source.name)
        limits = request.limits or self._limits
        return await self._supervisor.submit(
            await asyncio.to_thread(self._row, request, source),
            partial(self._prepare, request, source),
            limits=limits,
            request=request.stored(limits),
            claim=claim,
        )

    async def rerun(self, run_id: str, *, who: str, trigger: str, **changes: bool) -> Run:
        """The same again for the home's own user: target, parameters and limits. Raises as ``launch``, ``Conflict``.

        ``changes`` are of ``from_pypi`` and ``offline``.
        """
        row, stored = await self._state.get(run_id), await self._state.request(run_id)
        if row.kind == MAKING:
            return await self._makings.again(row, stored, who=who, trigger=trigger, **changes)
        request = restored(row, stored)
        also = {"who": who, "trigger": trigger, "rerun_of": row.id, "jwt": "", **changes}
        return await self.launch(dataclasses.replace(request, **also))  # type: ignore[arg-type]  # fields by name

    async def reinstall(self, wanted: str, *, who: str, jwt: str = "") -> dict[str, int]:
        """Have a package fetched and prepared anew at its next run; ``cancelled`` is how many runs of it were ended.

        ``wanted`` is its id or name, ``jwt`` whose right to read it counts. Raises ``NotFound``.
        """
        document = await find_package(await self._link.client(), wanted, jwt=jwt)
        package = str(document["_id"])
        runs = self._supervisor.live_of(package)
        for run in runs:
            await self._supervisor.cancel(run.row.id, who=f"{who}, for the package to be installed anew")
        await asyncio.gather(*(run.wait() for run in runs))
        for fileid in [fileid for fileid, owner in self._versions.packages.items() if owner == package]:
            await self._versions.forget(fileid)
            await self._site.preparations.forget(fileid)
        for environment in await self._state.environments_of_one(package):
            with contextlib.suppress(NotFound, InvalidInput):  # it has been removed, or is none of ours
                await self._site.environments.taint(environment)
        return {"cancelled": len(runs)}

    async def resumed(self, row: RunRow) -> tuple[PrepareFn, Limits]:
        """How a run that an earlier agent took in is prepared. Raises ``Conflict`` when that is not known any more."""
        stored = await self._state.request(row.id)
        if row.kind == MAKING:
            return self._makings.resumed(row, stored)
        request = restored(row, stored)
        return partial(self._prepare, request, None), request.limits or self._limits

    async def _check_environment(self, request: RunRequest, source: Source) -> None:
        """Raise for one that cannot be had, or that the source cannot run in, as far as that is known now."""
        if not request.environment:
            return
        if source.language and source.language.lower() not in runtimes.IN_ENVIRONMENTS:
            raise InvalidInput(f"{source.name} runs in no environment: only notebooks and Python do.")
        if await asyncio.to_thread(runtimes.definition_in, request.environment) is None:
            await runtimes.existing(self._site.environments, request.environment)

    def _row(self, request: RunRequest, source: Source) -> RunRow:
        return RunRow(
            id=new_run_id(),
            kind="prepare" if request.prepare_only else "run",
            state=RunState.QUEUED,
            package_id=str(source.document["_id"]) if source.document else None,
            package=source.name,
            version=source.version,
            fileid=str(source.document.get("fileid") or "") if source.document else None,
            path=str(source.entry or source.folder) if not source.document else None,
            language=source.language,
            trigger=request.trigger,
            who=request.who,
            token=self._which_token(request, source),
            parameters=abridged(request.parameters),
            priority=request.priority,
            retries=request.retries,
            retry_delay_s=request.retry_delay_s,
            rerun_of=request.rerun_of,
            key=request.key,
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            reply=dict(request.reply) if request.reply else None,
        )

    async def _find(self, request: RunRequest) -> Source:
        if request.sender is None and os.path.isabs(request.target):  # noqa: PTH117 - a string that may be no path at all
            return await asyncio.to_thread(source_of_path, Path(request.target))
        client = await self._link.client()
        document = await find_package(client, request.target, jwt=request.token)
        if request.sender is not None:
            require_package(request.sender, document)
        if os.path.isabs(document["_id"]):  # noqa: PTH117 - the same
            raise InvalidInput("The id of this package is the path of a file: publish it anew.")
        return Source(
            name=str(document.get("name") or document.get("id") or document["_id"]),
            language=str(document.get("language") or section(document).get("language") or ""),
            version=str(document.get("version") or ""),
            document=document,
        )

    def _which_token(self, request: RunRequest, source: Source) -> str:
        if self._link.runas:
            return "runas"
        if request.sender is not None:
            return "sender"
        return "agent" if self._is_granted(source) else "none"

    def _is_granted(self, source: Source) -> bool:
        if source.document is None:
            return False
        asked = section(source.document).get("agenttoken") is True
        return asked or "*" in self._granted or str(source.document["_id"]) in self._granted

    async def _prepare(self, request: RunRequest, source: Source | None, run: Run) -> Prepared:
        source = source or await self._find(request)
        files = await self._files(source, run, isolated=request.isolated)
        payload = run.folder / "payload.json"
        await asyncio.to_thread(lambda: write_private(payload, json.dumps(dict(request.parameters))))
        task = runtimes.Task(
            folder=files.folder,
            run_folder=run.folder,
            entry=files.entry,
            parameters=dict(request.parameters),
            env=await self._child_environment(run.row, request, payload, files.folder),
            tag=run.tag,
            own_interpreter=source.document is None and source.entry is not None,
            manifest=files.manifest,
            source=files.source,
            prepare_only=request.prepare_only,
            environment=request.environment,
            from_pypi=request.from_pypi,
            offline=request.offline,
        )
        if not request.prepare_only:
            await runtimes.check_needs(runtimes.needs_of(files.manifest), self._site.tools, package=source.name)
        with offering():
            prepared = await runtimes.runtime_for(files.language).prepare(task, self._site, run)
        return prepared.with_workdir(files.folder) if files.private else prepared

    async def _files(self, source: Source, run: Run, *, isolated: bool) -> Files:
        """The folder that the run works in: a private copy, but for a file of the user's own, which runs in place."""
        work = run.folder / "work"
        if source.entry is not None and not isolated:
            return Files(source.entry.parent, source.entry, source.language)
        if source.entry is not None:
            await self._copy(source.entry.parent, work)
            return Files(work, work / source.entry.name, source.language, private=True)
        if source.folder is not None:
            await to_its_end(partial(copy_as_published, source.folder, work, bounds=self._versions.bounds))
        else:
            source = await self._newest(source, run)
            source = await self._copy_of_package(source, run, work)
        return await asyncio.to_thread(files_of_package, work, source.document)

    async def _copy(self, source: Path, target: Path) -> None:
        """A private copy, without this home, which may lie in a user's folder; a cancellation breaks it off."""
        broken_off = threading.Event()
        try:
            await to_its_end(
                partial(copy_tree, source, target, without=self._home.path, broken_off=broken_off), broken_off.set
            )
        except shutil.Error as error:
            failures: list[tuple[str, str, str]] = error.args[0]
            raise Failed(f"{len(failures)} of the files cannot be copied, the first: {failures[0][2]}") from error

    async def _copy_of_package(self, source: Source, run: Run, work: Path) -> Source:
        """Copy the package's files to ``work``; the source that they are of.

        When the archive is gone, the package may have been published again in this moment: then that one is taken.
        """
        try:
            async with self._versions.take(self._link.client, source.document or {}) as folder:
                await self._copy(folder, work)
        except (ServerRefused, NotFound, Failed):
            newer = await self._newest(source, run)
            if newer is source:
                raise
            return await self._copy_of_package(newer, run, work)
        return source

    async def _newest(self, source: Source, run: Run) -> Source:
        """The package as it is now, unless the run's version is here and the package has no other one since."""
        document = source.document or {}
        if self._versions.is_current(str(document.get("fileid"))):
            return source
        now = await find_package(await self._link.client(), str(document["_id"]))
        if now.get("fileid") == document.get("fileid"):
            return source
        run.change(fileid=str(now.get("fileid") or ""), version=str(now.get("version") or ""))
        return dataclasses.replace(source, document=now)

    async def _child_environment(self, row: RunRow, request: RunRequest, payload: Path, cwd: Path) -> dict[str, str]:
        """Design: an allow-list of ours, what the agent's document sets, the payload's harmless keys, the token."""
        variables = processes.inherited_environment(builders=False)
        granted = self._link.document.get("environment")
        if isinstance(granted, dict):
            variables.update(harmless({k: v for k, v in granted.items() if isinstance(v, str)}, variables))
        variables.update(await asyncio.to_thread(harmless, request.parameters, dict(variables)))
        variables["payloadfile"] = f"../{payload.name}" if cwd.parent == payload.parent else str(payload)
        if self._link.endpoint is not None:
            variables["apiurl"] = self._link.endpoint.url
        if token := await self._token(row, request):
            variables["jwt"] = token
        return variables

    async def _token(self, row: RunRow, request: RunRequest) -> str:
        if row.token == "sender":  # noqa: S105 - the name of a kind
            return request.token
        if row.token in ("runas", "agent"):
            return await (await self._link.client()).mint_token()
        return ""


def checked(request: RunRequest) -> Claim | None:
    """What the request's key stands for. Raises ``InvalidInput`` for what cannot be asked for."""
    request.check()
    return request.claim()


def copy_as_published(folder: Path, work: Path, *, bounds: Bounds) -> None:
    """A copy of a package's folder with what its archive would hold, and nothing else."""
    with tempfile.TemporaryDirectory(dir=work.parent) as scratch:
        unpacked = Path(scratch) / "files"
        unpack(pack(folder, Path(scratch), bounds=bounds), unpacked, bounds=bounds)
        package_root(unpacked).rename(work)


def files_of_package(folder: Path, document: Mapping[str, Any] | None) -> Files:
    """What the manifest says is started. Raises ``InvalidInput`` or ``NotFound``."""
    manifest = Manifest.read(folder, document)
    entry = entry_point(folder, manifest)
    source = str((document or {}).get("fileid") or "")
    return Files(folder, entry, manifest.language, private=True, manifest=manifest, source=source)


def source_of_path(path: Path) -> Source:
    """What lies at a path: a notebook, a script or a package's folder. Raises ``NotFound`` or ``InvalidInput``."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL, is none either
        raise NotFound(f"There is no file or folder {path}, or it may not be read.") from error
    if kind == stat.S_IFDIR:
        manifest = Manifest.read(path)
        entry_point(path, manifest)
        return Source(manifest.name, manifest.language, version=manifest.version, folder=path)
    if kind != stat.S_IFREG:
        raise InvalidInput(f"{path} cannot be run: it is neither a file nor a folder.")
    language = {".ipynb": "notebook", ".py": "python"}.get(path.suffix.lower())
    if language is None:
        raise InvalidInput(f"{path.name} cannot be run: give a notebook (.ipynb), a Python file or a package's folder.")
    return Source(path.name, language, entry=path)


def section(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section ``openiap`` of a package's document; empty where there is none that is an object."""
    found = document.get("openiap")
    return found if isinstance(found, dict) else {}
