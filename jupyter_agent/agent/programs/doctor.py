"""``doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jupyter_agent.agent.doctor.examination import examine
from jupyter_agent.agent.doctor.findings import Case, Finding
from jupyter_agent.agent.voice import Voice
from jupyter_agent.home import Home

SIGNS = {"ok": ("✓", "ok     "), "warning": ("!", "warning"), "problem": ("✗", "PROBLEM")}


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """It has no options of its own."""


def run(home: Home, _given: argparse.Namespace, voice: Voice) -> int:
    """Look at everything; 1 only when there is a problem."""
    findings = asyncio.run(examine(Case(home, os.environ, Path(tempfile.gettempdir()))))
    problems = sum(finding.state == "problem" for finding in findings)
    warnings = sum(finding.state == "warning" for finding in findings)
    document = {
        "home": str(home.path),
        "problems": problems,
        "warnings": warnings,
        "checks": [asdict(finding) for finding in findings],
    }
    voice.answer(document, "\n".join([*_lines(findings), _summary(problems, warnings)]))
    return 1 if problems else 0


def _lines(findings: Sequence[Finding]) -> list[str]:
    widest = max(len(finding.name) for finding in findings)
    fancy = (sys.stdout.encoding or "").lower().startswith("utf")
    lines = []
    for finding in findings:
        sign = SIGNS[finding.state][0 if fancy else 1]
        lines.append(f"{sign} {finding.name:<{widest}}  {finding.message}")
        if finding.todo:
            lines.append(f"{'':<{widest + len(sign) + 3}}→ {finding.todo}" if fancy else f"    -> {finding.todo}")
    return lines


def _summary(problems: int, warnings: int) -> str:
    if not problems and not warnings:
        return "\nAll is well."
    return f"\n{problems} problem{'' if problems == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}."
