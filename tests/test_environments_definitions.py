"""Files that say what an environment is to hold: found, read within bounds, told apart, named by what they ask for."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jupyter_agent.environments import given as given_lock
from jupyter_agent.environments.definitions import Definition, Kind, find, kind_of, this_platform
from jupyter_agent.environments.reading import load_yaml
from jupyter_agent.errors import AgentError, InvalidInput, NewerVersion, NotFound
from tests.conftest import BUDGETS

PLAIN = "channels: [conda-forge]\ndependencies: [python]\n"

EXPLICIT = "@EXPLICIT\nhttps://example.org/c/noarch/x-1-0.conda\n"

PROJECT = "[project]\nname = 'x'\ndependencies = ['numpy']\n"


def definition(text: str, name: str = "environment.yml") -> Definition:
    return Definition.of(name, textwrap.dedent(text))


def refused(act: Callable[[], Any]) -> tuple[str | None, Any]:
    """The sentence with which something was refused, or what it gave. Whatever else it raises is a fault."""
    try:
        return None, act()
    except AgentError as error:
        return str(error), None


# Finding


def test_a_packages_file_is_found_in_the_order_that_is_documented(tmp_path: Path) -> None:
    texts = {
        "conda-lock.yml": "version: 1",
        "environment.yml": PLAIN,
        "environment.yaml": PLAIN,
        "conda.yml": PLAIN,
        "conda.yaml": PLAIN,
        "explicit.txt": EXPLICIT,
        f"conda-{this_platform()}.lock": EXPLICIT,
        "spec-file.txt": EXPLICIT,
        "requirements.txt": "numpy",
        "pyproject.toml": PROJECT,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    for name in texts:
        assert find(tmp_path) == tmp_path / name
        (tmp_path / name).unlink()
    assert find(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("explicit.txt", "notes about explicit things", False),
        ("conda-other-1.lock", EXPLICIT, False),
        ("pyproject.toml", "[tool.ruff]\nline-length = 120\n", False),
        ("pyproject.toml", "[project]\nname = 'x'\ndependencies = []\n", False),
        ("pyproject.toml", "[project]\nrequires-python = '>=3.11'\n", False),
        ("pyproject.toml", "[project]\nrequires-python = '<3'\n", True),
        ("pyproject.toml", "[project]\nrequires-python = 'new'\n", True),
        ("pyproject.toml", "[tool.conda-lock]\nchannels = ['conda-forge']\n", True),
        ("pyproject.toml", "[tool.poetry.dependencies]\nnumpy = '*'\n", True),
        ("pyproject.toml", "[tool.poetry]\nname = 'x'\n", False),
        ("pyproject.toml", "no toml", True),
        ("environment.yml.bak", PLAIN, False),
    ],
)
def test_only_what_asks_for_something_is_found(tmp_path: Path, name: str, text: str, *, found: bool) -> None:
    (tmp_path / name).write_text(text)
    assert (find(tmp_path) is not None) is found


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("environment.yml", PLAIN, Kind.CONDA),
        ("Environment.YAML", PLAIN, Kind.CONDA),
        ("mine.yml", PLAIN, Kind.CONDA),
        ("conda-lock.yml", "", Kind.LOCK),
        ("gpu.conda-lock.yml", "", Kind.LOCK),
        ("mine.yml", "version: 1\nmetadata:\n  x: 1\npackage:\n- a\n", Kind.LOCK),
        ("anything", EXPLICIT, Kind.EXPLICIT),
        ("requirements-dev.txt", "numpy", Kind.REQUIREMENTS),
        ("deps.in", "numpy", Kind.REQUIREMENTS),
        ("deps.txt", EXPLICIT, Kind.EXPLICIT),
        ("other.toml", PROJECT, Kind.PYPROJECT),
        ("anything", PLAIN, Kind.CONDA),
    ],
)
def test_the_kind_is_told_by_name_then_by_text(name: str, text: str, kind: Kind) -> None:
    assert kind_of(name, text) is kind


def test_another_file_is_told_to_be_none() -> None:
    with pytest.raises(InvalidInput, match="no file that says what an environment is to hold"):
        kind_of("report.ipynb", "{}")


# Reading


def test_what_is_included_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text(
        "dependencies:\n- pip:\n  - -r more/base.txt\n  - '--constraint=limits.txt'\n  - -rmore/deeper.txt\n  - rich\n"
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more/base.txt").write_text("alpha\n-r deeper.txt\n")
    (tmp_path / "more/deeper.txt").write_text("beta\n")
    (tmp_path / "limits.txt").write_text("alpha<2\n")
    found = Definition.read(tmp_path / "environment.yml", within=tmp_path)
    assert found.included == {
        "more/base.txt": "alpha\n-r deeper.txt\n",
        "more/deeper.txt": "beta\n",
        "limits.txt": "alpha<2\n",
    }


def test_the_same_file_included_many_times_over_is_heard_once(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"-r {number + 1}.txt\n" * 3 + f"p{number}\n")
    (tmp_path / "60.txt").write_text("last\n")
    (tmp_path / "requirements.txt").write_text("-r 0.txt\n")
    found = Definition.read(tmp_path / "requirements.txt")
    assert len(found.included) == 61
    assert sorted(found.requirements().lines) == sorted(["last", *(f"p{number}" for number in range(60))])


def _write(data: bytes, name: str = "environment.yml") -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return made


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "environment.yml")
    return folder / "environment.yml"


def _link(target: str) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        (folder / "environment.yml").symlink_to(target)
        return folder / "environment.yml"

    return made


BAD_FILES: dict[str, tuple[Callable[[Path], Path], type[AgentError], str]] = {
    "missing": (lambda folder: folder / "environment.yml", NotFound, "There is no file environment.yml"),
    "folder": (lambda folder: folder, InvalidInput, "cannot be read"),
    "device": (lambda _folder: Path("/dev/zero"), InvalidInput, "no file that can be read"),
    "pipe": (_fifo, InvalidInput, "no file that can be read"),
    "10 MB": (_write(b"# " + b"x" * 10_000_000), InvalidInput, "more than 1 MB"),
    "10 MB of packages": (_write(b"dependencies:\n" + b"- numpy\n" * 1_250_000), InvalidInput, "more than 1 MB"),
    "UTF-16": (_write("dependencies: [a]".encode("utf-16")), InvalidInput, "save it as UTF-8"),
    "Latin-1": (_write(b"name: caf\xe9\n"), InvalidInput, "save it as UTF-8"),
    "NUL": (_write(b"dependencies: [a]\n\0"), InvalidInput, "NUL"),
    "link to itself": (_link("environment.yml"), InvalidInput, "cannot be read"),
    "link out of the folder": (_link("/etc/hostname"), InvalidInput, "leads out of its folder"),
    "name too long": (lambda folder: folder / ("x" * 300 + ".yml"), InvalidInput, "cannot be read"),
    "name with a newline": (_write(b"", "a\nb.yml"), InvalidInput, "cannot be shown"),
    "NUL in its name": (lambda folder: folder / "a\0b.yml", InvalidInput, "cannot be shown"),
    "below a file": (lambda folder: _write(b"x", "a.txt")(folder) / "environment.yml", InvalidInput, "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices are Unix's")
def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path: Path, case: str) -> None:
    make, kind, sentence = BAD_FILES[case]
    within = None if case == "device" else tmp_path
    with pytest.raises(kind) as caught:
        Definition.read(make(tmp_path), within=within)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "kind", "sentence"),
    [
        ("-r ../outside.txt", InvalidInput, "not in the package"),
        ("-r link.txt", InvalidInput, "not in the package"),
        ("-r /etc/hostname", InvalidInput, "not in the package"),
        ("-r https://user:secret@example.org/r.txt", InvalidInput, "not in the package"),
        ("-r gone.txt", NotFound, "no such file"),
        (f"-r {'x' * 300}.txt", NotFound, "no such file"),
        ("-r circle.txt", InvalidInput, "includes it again"),
        ("-r loop.txt", NotFound, "no such file"),
        ("-r large.txt", InvalidInput, "has more than 1 MB"),
        ("-r binary.txt", InvalidInput, "cannot be read as text"),
        ("-r", InvalidInput, "without a usable name"),
        ("-c many.txt", InvalidInput, "more than 100 files"),
    ],
)
@pytest.mark.parametrize("name", ["requirements.txt", "environment.yml"])
def test_an_included_file_that_cannot_be_had_is_told(
    tmp_path: Path, name: str, line: str, kind: type[AgentError], sentence: str
) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (tmp_path / "outside.txt").write_text("alpha")
    (folder / "link.txt").symlink_to("../outside.txt")
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "circle.txt").write_text("-r circle.txt")
    (folder / "large.txt").write_text("alpha\n" * 200_000)
    (folder / "binary.txt").write_bytes(b"\xff\xfe\0")
    if "many" in line:
        (folder / "many.txt").write_text("".join(f"-r {number}.txt\n" for number in range(101)))
        for number in range(101):
            (folder / f"{number}.txt").write_text("alpha\n")
    (folder / name).write_text(line if name == "requirements.txt" else f"dependencies:\n- pip:\n  - '{line}'\n")
    with pytest.raises(kind) as caught:
        Definition.read(folder / name, within=folder)
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


def test_files_that_are_small_are_not_when_they_are_many(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("# " + "x" * 400_000)
    (tmp_path / "requirements.txt").write_text("-r 0.txt\n-r 1.txt\n-r 2.txt\n")
    with pytest.raises(InvalidInput, match="has more than"):
        Definition.read(tmp_path / "requirements.txt")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("environment.yml", "name: \ud800\n" + PLAIN, "give whole characters"),
        ("environment.yml", PLAIN + "\0", "NUL"),
        ("environment.yml", PLAIN + "#" * 1_000_000, "more than 1 MB"),
        ("conda-lock.yml", "#" * 32_000_001, "more than 32 MB"),
        ("a\nb.yml", PLAIN, "cannot be shown"),
        ("", PLAIN, "cannot be shown"),
    ],
)
def test_a_text_without_a_file_is_held_to_the_same(name: str, text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Definition.of(name, text)
    assert sentence in str(caught.value)


def test_lines_end_the_same_on_every_system(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_bytes(b"\xef\xbb\xbfdependencies:\r\n- a\r\n")
    (tmp_path / "b.yml").write_bytes(b"dependencies:\n- a\n")
    assert Definition.read(tmp_path / "a.yml").digest == Definition.read(tmp_path / "b.yml").digest


# Digests


@pytest.mark.parametrize(
    "text",
    [
        f"name: other\n{PLAIN}",
        f"{PLAIN}prefix: /home/somebody/envs/x\n",
        f"name: other  # the team's own\n\n\n{PLAIN}prefix: /x\n",
        f"{PLAIN}name: other",
        f"name: |\n  é\n  è\n{PLAIN}",
    ],
)
def test_name_and_prefix_are_no_identity(text: str) -> None:
    assert definition(text).digest == definition(PLAIN).digest


def test_neither_is_the_files_name() -> None:
    assert definition(PLAIN, "conda.yaml").digest == definition(PLAIN).digest


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("python", "python 3.12"),
        PLAIN + "variables: {NAME: x}\n",
        "variables:\n  A: 'x\nname: a\n'\n" + PLAIN,
        "  name: a\n" + PLAIN,
    ],
)
def test_what_is_asked_for_is(text: str) -> None:
    assert definition(text).digest != definition(PLAIN).digest


def test_a_line_that_only_looks_like_a_name_is_heard() -> None:
    first, second = (f"variables:\n  A: 'x\nname: {name}\n'\n{PLAIN}" for name in ("a", "b"))
    assert definition(first).digest != definition(second).digest


def test_so_is_what_is_included(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r more.txt")
    digests = set()
    for text in ("alpha", "beta"):
        (tmp_path / "more.txt").write_text(text)
        digests.add(Definition.read(tmp_path / "requirements.txt").digest)
    assert len(digests) == 2


def test_what_conda_exports_is_told_where_it_belongs() -> None:
    with pytest.raises(InvalidInput, match="in conda's words: put it into"):
        definition("# platform: linux-64\nnumpy=1.26.4=py311_0\n", "requirements.txt").requirements()
    assert definition("x===1.0", "requirements.txt").requirements().lines == ("x===1.0",)


# What needs conda


@pytest.mark.parametrize(
    ("name", "text", "conda"),
    [
        ("environment.yml", PLAIN, True),
        ("conda-lock.yml", "version: 1", True),
        ("explicit.txt", EXPLICIT, True),
        ("requirements.txt", "numpy", False),
        ("pyproject.toml", PROJECT, False),
        ("pyproject.toml", PROJECT + "requires-python = '>=3.9'\n", False),
        ("pyproject.toml", PROJECT + "requires-python = '<3'\n", True),
        ("pyproject.toml", PROJECT + "[tool.conda-lock]\nchannels = ['x']\n", True),
        ("pyproject.toml", "[tool.poetry.dependencies]\nnumpy = '^2'\n", True),
    ],
)
def test_what_needs_conda_is_known_without_it(name: str, text: str, *, conda: bool) -> None:
    found = definition(text, name)
    assert found.conda() is conda
    if conda:
        with pytest.raises(InvalidInput, match="cannot be made from requirements alone"):
            found.requirements()
    else:
        assert found.requirements().lines == ("numpy",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[project\n", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("[project]\ndependencies = 'numpy'\n", "is no list of texts"),
        ("[project]\ndependencies = [1]\n", "is no list of texts"),
        ("[project]\ndependencies = ['']\n", "which is no requirement"),
        ("[project]\ndependencies = ['--index-url https://x']\n", "which is no requirement"),
        ('[project]\ndependencies = ["a\\n--index-url https://x"]\n', "which is no requirement"),
        ("[project]\ndependencies = ['x @ file:///x']\n", "a path"),
        ("[project]\nrequires-python = 'new'\n", "which is no version"),
    ],
)
def test_a_project_that_cannot_be_read_is_told(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        definition(text, "pyproject.toml").requirements()
    assert sentence in str(caught.value)


# YAML


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "&a [*a, ", "? [\n", "[[],"])
def test_nesting_is_refused_at_once(opening: str) -> None:
    with pytest.raises(InvalidInput, match=r"nested deeper than 30 levels|is not YAML"):
        load_yaml(opening * 300_000, "x.yml")


def test_what_grows_by_its_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InvalidInput, match="grows beyond"):
        load_yaml("\n".join(lines), "x.yml")


def test_aliases_in_measure_are_heard() -> None:
    assert load_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", "x.yml")["c"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb:\n\t- c", "line 3, column 1: a tab, where YAML takes spaces only"),
        ("a: 1\na: 2", "has the key 'a' twice (line 2)"),
        ("a: {b: 1, 'b': 2}", "has the key 'b' twice"),
        ("a: [1", "is not YAML: line 2"),
        ("a: *b", "undefined alias"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
        ("a: !!int x", "is not YAML that can be used"),
        ("a: 2020-13-45", "is not YAML that can be used"),
        ("? [a]\n: b", "is not YAML"),
        ("a\x07b", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_yaml(text, "x.yml")
    assert sentence in str(caught.value)


@settings(max_examples=BUDGETS["definition_examples"], deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@`,? \t\n\\0~<"), max_size=60))
@example("!!float .")
@example("a: !!timestamp x")
@example("!!binary é")
@example("? !!map\n: x")
def test_any_text_is_yaml_or_refused(text: str) -> None:
    said, value = refused(lambda: load_yaml(text, "x.yml", duplicates=True))
    if said is None:
        assert repr(value) == repr(yaml.load(text, Loader=yaml.CSafeLoader))
    else:
        assert said.startswith("x.yml ")
        assert "\n" not in said


@settings(max_examples=BUDGETS["definition_examples"], deadline=None)
@given(
    st.sampled_from(
        ["requirements.txt", "environment.yml", "pyproject.toml", "conda-lock.yml", "explicit.txt", "x.txt"]
    ),
    st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
def test_any_file_is_a_definition_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)

    def read() -> None:
        found = Definition.read(folder / name, within=folder)
        assert len(found.digest) == 64
        assert found.conda() or found.requirements().lines is not None

    said, _ = refused(read)
    assert said is None or (said.endswith((".", "?")) and "\n" not in said)


# A given lock

LOCK = {
    "version": 1,
    "metadata": {"platforms": ["linux-64", "osx-arm64"], "content_hash": {}, "channels": [], "sources": []},
    "package": [
        {
            "name": "python",
            "version": "3.11.7",
            "manager": "conda",
            "platform": "linux-64",
            "url": "https://example.org/c/linux-64/python-3.11.7-0.conda",
            "hash": {"md5": "0" * 32, "sha256": "0" * 64},
        },
        {
            "name": "rich",
            "version": "1",
            "manager": "pip",
            "platform": "linux-64",
            "url": "https://example.org/rich-1-py3-none-any.whl",
            "hash": {"sha256": "0" * 64},
        },
    ],
}


def lock(**changes: object) -> Definition:
    return definition(yaml.safe_dump({**LOCK, **changes}), "conda-lock.yml")


def package(**changes: object) -> Definition:
    first = {**LOCK["package"][0], **changes}  # type: ignore[index]
    return lock(package=[{key: value for key, value in first.items() if value != "gone"}])


def test_a_given_lock_is_taken_for_its_platforms() -> None:
    given_lock.check(lock(), platform="linux-64")
    with pytest.raises(InvalidInput, match=r"has nothing for win-64 \(but for linux-64, osx-arm64\)"):
        given_lock.check(lock(), platform="win-64")
    with pytest.raises(InvalidInput, match="has nothing for osx-arm64"):
        given_lock.check(lock(), platform="osx-arm64")


@pytest.mark.parametrize(
    ("broken", "kind", "sentence"),
    [
        (definition("[", "conda-lock.yml"), InvalidInput, "is not YAML"),
        (definition("", "conda-lock.yml"), InvalidInput, "is no lock"),
        (definition(PLAIN, "conda-lock.yml"), InvalidInput, "is no lock"),
        (definition("package: {}\nmetadata: {}", "conda-lock.yml"), InvalidInput, "is no lock"),
        (lock(version=6), NewerVersion, "is a lock of version 6"),
        (lock(version="x"), InvalidInput, "is a lock of version 'x'"),
        (lock(version=None), InvalidInput, "is a lock of version 'None'"),
        (lock(metadata=[]), InvalidInput, "has no 'metadata'"),
        (lock(metadata={"platforms": "linux-64"}), InvalidInput, "for which platforms"),
        (lock(package=["x"]), InvalidInput, "package 1 is no mapping"),
        (package(url="gone"), InvalidInput, "has no usable 'url'"),
        (package(url=7), InvalidInput, "has no usable 'url'"),
        (package(name="--index-url"), InvalidInput, "has no usable 'name'"),
        (package(name="a\nb"), InvalidInput, "has no usable 'name'"),
        (package(manager="npm"), InvalidInput, "only conda and pip are known"),
        (package(manager="pip", url="git+https://h.test/x.git@1"), InvalidInput, "comes from a repository"),
        (package(hash="gone"), InvalidInput, "has no md5 and no sha256"),
        (package(hash={"sha256": "00"}), InvalidInput, "has the sha256 '00'"),
        (package(hash={"md5": 3}), InvalidInput, "has the md5 '3'"),
    ],
)
def test_a_broken_lock_is_told(broken: Definition, kind: type[AgentError], sentence: str) -> None:
    with pytest.raises(kind) as caught:
        given_lock.check(broken, platform="linux-64")
    assert sentence in str(caught.value)
