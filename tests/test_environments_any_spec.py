"""Any file that says what an environment is to hold: understood as conda understands it, or refused in one sentence."""

from __future__ import annotations

import json
import warnings
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from jupyter_agent.environments.definitions import Definition, without_identity
from jupyter_agent.environments.reading import load_yaml
from jupyter_agent.environments.specs import parse
from jupyter_agent.environments.specs.condalock import MatchSpec
from jupyter_agent.environments.specs.matchspecs import wanted
from jupyter_agent.errors import AgentError, InvalidInput
from tests.conftest import BUDGETS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from conda_lock._vendor.conda.models.records import PackageRecord as CondaRecord
from rattler import BuildString, PackageRecord
from rattler import MatchSpec as RattlerSpec

VERSIONS = ("0.9", "1", "1.2", "1.2.3", "1.2.3.post1", "1.2rc1", "1.3", "1.10", "2", "2.1", "3.11.7", "10.1", "1!1.2")

BUILDS = ("0", "h1_1", "py_0", "py311_0", "cuda118_0")

RECORDS = [(version, build) for version in VERSIONS for build in BUILDS]

FOR_CONDA = [
    CondaRecord(  # type: ignore[no-untyped-call]
        name="pkg", version=version, build=build, build_number=int(build[-1]), channel="c", subdir="linux-64", fn="x"
    )
    for version, build in RECORDS
]

FOR_RATTLER = [
    PackageRecord("pkg", version, BuildString(build), int(build[-1]), "linux-64", python_site_packages_path=None)
    for version, build in RECORDS
]

SIGN = st.sampled_from(["=", "==", ">=", "<", "<=", ">", "!=", " ", " = ", " >= ", " !="])

VERSION = st.builds("{}{}".format, st.sampled_from(VERSIONS), st.sampled_from(["", "", ".*"]))

FURTHER = st.builds("{}{}{}".format, st.sampled_from([",", "|", ", ", " | "]), SIGN.map(str.strip), VERSION)

BUILD = st.sampled_from(["", "", "=py_0", " py311_0", "=py*", " *_0", "=*cuda*", "[build_number='>=1']"])

SPEC = st.builds(
    lambda sign, version, further, build: f"pkg{sign}{version}{''.join(further)}{build}",
    *(SIGN, VERSION, st.lists(FURTHER, max_size=3), BUILD),
)


@settings(max_examples=BUDGETS["definition_examples"], deadline=None)
@given(SPEC)
@example("pkg>1.2.*")
@example("pkg=1.2|1.3")
def test_what_the_solver_is_given_means_to_it_what_the_file_means_to_conda(text: str) -> None:
    """Held against conda's own matching of packages, as conda_lock carries it."""
    try:
        words = wanted(text, "f").words
    except InvalidInput:
        reject()
    by_conda: Any = MatchSpec(text)  # type: ignore[no-untyped-call]
    expected = [bool(by_conda.match(record)) for record in FOR_CONDA]
    found = [RattlerSpec(words, strict=True).matches(record) for record in FOR_RATTLER]
    assert found == expected


WORDS = st.sampled_from(
    [
        *(
            "",
            "num py",
            "numpy[extra]",
            "--index-url",
            "-e .",
            "a\n--pre",
            "a\x1b[31m",
            "./x",
            "*",
            "3.11",
            "a::b::c",
            "::x",
        ),
        *(
            "x[foo=1]",
            "x[url=https://example.org/x]",
            "https://u:p@example.org/x.conda",
            "x" * 2000,
            "näme",
            "x[md5=12]",
        ),
        *("python=3.11", "numpy >=1.2,<2", "conda-forge::x", "pip", "x[a]>=1", "x @ https://example.org/x.zip", "^1.2"),
        *("git+https://example.org/r.git", "https://u:p@example.org:99999/c", "https://[", "nodefaults", "linux-64"),
        *(
            "x  # [linux]",
            "x  # [py39]",
            "-r a",
            "-c b",
            "--pre",
            "x; python_version < '3'",
            "(1|2)",
            "1.*.*",
            "${A}/x",
        ),
    ]
)

LEAF = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)

KEYS = st.sampled_from(["pip", "version", "git", "path", "url", "extras", "optional", "source", "markers", "A", "<<"])

VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | WORDS, inner, max_size=3), max_leaves=8
)

LIKELY = st.lists(WORDS | st.fixed_dictionaries({"pip": st.lists(WORDS, max_size=3)}), max_size=5)

ENVIRONMENT = st.fixed_dictionaries(
    {"dependencies": LIKELY | VALUE},
    optional={
        "channels": st.lists(WORDS, max_size=3) | VALUE,
        "platforms": st.just(["linux-64"]) | VALUE,
        "variables": st.dictionaries(KEYS, LEAF, max_size=3) | VALUE,
        "pip-repositories": VALUE,
        "name": VALUE,
    },
)


def toml(value: object) -> str:
    """A value as TOML writes it; nothing and what is infinite as a text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml(each)}' for key, each in value.items())}}}"
    return json.dumps(str(value))


TABLE = st.dictionaries(KEYS | WORDS | st.just("python"), LEAF | VALUE, max_size=3)

PROJECT = st.fixed_dictionaries(
    {},
    optional={
        "project": st.fixed_dictionaries({"dependencies": st.lists(WORDS, max_size=3) | VALUE}) | VALUE,
        "tool": st.fixed_dictionaries(
            {},
            optional={
                "poetry": st.fixed_dictionaries({"dependencies": TABLE}) | VALUE,
                "conda-lock": st.fixed_dictionaries({"dependencies": TABLE, "channels": st.lists(WORDS)}) | VALUE,
                "flit": st.fixed_dictionaries({"metadata": st.fixed_dictionaries({"requires": VALUE})}),
            },
        )
        | VALUE,
        "build-system": VALUE,
    },
)

LINES = st.lists(WORDS | st.text(max_size=20), max_size=5).map("\n".join)

FILES = (
    st.tuples(st.just("environment.yml"), ENVIRONMENT.map(lambda value: yaml.safe_dump(value, allow_unicode=True)))
    | st.tuples(st.just("environment.yml"), VALUE.map(yaml.safe_dump))
    | st.tuples(st.just("environment.yml"), LINES)
    | st.tuples(
        st.just("pyproject.toml"), PROJECT.map(lambda value: "\n".join(f"{k} = {toml(value[k])}" for k in value))
    )
    | st.tuples(st.just("requirements.txt"), LINES)
    | st.tuples(st.just("explicit.txt"), LINES.map("@EXPLICIT\n{}".format))
)


@settings(
    max_examples=BUDGETS["definition_examples"],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(FILES, st.sampled_from([(), ("linux-64", "win-64"), ("linux-s390x",)]))
def test_any_file_is_understood_or_refused_in_a_sentence(file: tuple[str, str], platforms: tuple[str, ...]) -> None:
    """Nothing but errors of ours; and what is understood holds no line that could be an option or two lines."""
    name, text = file
    try:
        found = parse(Definition.of(name, text), platforms=platforms, extra=("ipykernel",))
    except AgentError as error:
        said = str(error)
        sound = "\n" not in said and said.endswith((".", "?")) and "u:p@" not in said and len(said) < 1000
        if not sound:
            raise AssertionError(said) from error
        return
    for lines in (*found.conda.values(), *found.pip.values()):
        assert all(line.strip() == line and "\n" not in line and not line.startswith("-") for line in lines)
    assert found.asked.platforms


TEXTS = ENVIRONMENT.map(lambda value: yaml.safe_dump(value, allow_unicode=True)) | st.lists(
    st.sampled_from(
        ["name: x", "prefix: /y  # z", "a: 'b", "name: c", "'", "- name: d", "e: [", "]", "", "  name: f", "# g"]
    ),
    max_size=8,
).map("\n".join)


@settings(max_examples=BUDGETS["definition_examples"], deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
def test_nothing_but_name_and_prefix_is_left_out_of_a_digest(text: str) -> None:
    """What two texts with one digest ask for is the same: what is left says all but those two."""
    try:
        whole = load_yaml(text, "x.yml")
    except InvalidInput:
        reject()
    if not isinstance(whole, dict):
        assert without_identity(text).rstrip("\n") == text.rstrip("\n")
        return
    left = load_yaml(without_identity(text), "x.yml") or {}
    for key in ("name", "prefix"):
        left.pop(key, None)
        whole.pop(key, None)
    assert repr(left) == repr(whole)
