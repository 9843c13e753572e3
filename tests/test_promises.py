"""Every promise names tests or benchmarks that exist; every figure's benchmark prints its goal."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from tests.bench.figures import BENCHES

TESTS = Path(__file__).parent
PROMISES = tomllib.loads((TESTS / "promises.toml").read_text())


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("promise", PROMISES["promise"], ids=lambda promise: promise["id"])
def test_a_promise_is_held_by_tests_that_exist(promise: dict[str, object]) -> None:
    tests, bench = promise.get("tests", []), promise.get("bench")
    assert isinstance(tests, list)
    assert tests or bench, "no test holds it"
    for test in tests:
        file, _, name = test.partition("::")
        assert name in functions(TESTS / file), f"there is no test {test}"
    if bench:
        assert bench in BENCHES, f"there is no benchmark {bench}"
        assert BENCHES[str(bench)].goal, f"the benchmark {bench} has no goal"


def test_no_promise_is_made_twice() -> None:
    ids = [promise["id"] for promise in PROMISES["promise"]]
    assert len(ids) == len(set(ids))


def test_every_allowed_skip_gives_its_reason() -> None:
    assert all(skip["test"] and skip["reason"] for skip in PROMISES.get("skip", []))
