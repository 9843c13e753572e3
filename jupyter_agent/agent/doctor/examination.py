"""All checks at once, each for itself: one that fails, or takes too long, spoils no other."""

from __future__ import annotations

import asyncio
import importlib

from jupyter_agent.agent.doctor.findings import Case, Finding, problem, warning

CHECKS = ("places", "running", "jupyter", "openflow", "channels", "conda", "programs")
"""Modules beside this one, each with ``async look(case) -> list[Finding]``; each is loaded for itself."""

PATIENCE_S = 60


async def examine(case: Case) -> list[Finding]:
    """What all checks found, in their order."""
    found = await asyncio.gather(*(_one(name, case) for name in CHECKS))
    return [finding for findings in found for finding in findings]


async def _one(name: str, case: Case) -> list[Finding]:
    try:
        module = await asyncio.to_thread(importlib.import_module, f"jupyter_agent.agent.doctor.{name}")
        async with asyncio.timeout(PATIENCE_S):
            findings: list[Finding] = await module.look(case)
    except TimeoutError:
        return [
            warning(name, f"This could not be looked at within {PATIENCE_S} s.", "Try again when less is going on.")
        ]
    except ImportError as error:
        return [problem(name, f"jupyter_agent is not whole ({error}).", "pip install --force-reinstall jupyter_agent")]
    except Exception as error:  # noqa: BLE001 - what is broken is what is looked for
        return [problem(name, f"This could not be looked at ({type(error).__name__}: {error}).", "Mend that first.")]
    return findings
