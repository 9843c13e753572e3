"""The environments that come along: each is locked, made, whole, and holds what it is for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jupyter_agent.environments.templates import templates
from tests.environment_peers import built, faults, locked

MODULES = {
    "data-science": ("pandas", "scipy", "pyarrow", "openpyxl", "sqlalchemy", "matplotlib.pyplot", "seaborn"),
    "llm": ("tiktoken", "openai", "anthropic", "jinja2", "tenacity", "pydantic"),
    "machine-learning": ("sklearn.ensemble", "lightgbm", "optuna", "joblib", "pyarrow"),
    "minimal": ("ipykernel", "pip"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all of them."""
    return tmp_path_factory.mktemp("templates")


def test_there_are_these() -> None:
    assert set(templates()) == set(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_template_is_made_and_holds_what_it_is_for(name: str, store: Path) -> None:
    lock = locked(templates()[name], store, from_pypi=True)
    prefix = built(lock, store / name / "prefix", store)
    assert faults(prefix, store) == []
    code = f"import {', '.join(MODULES[name])}, ipykernel, sys; print(sys.prefix)"
    done = subprocess.run([prefix / "bin" / "python", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(prefix)
