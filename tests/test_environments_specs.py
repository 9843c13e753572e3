"""What files ask for, platform by platform, and every way of saying it wrong in one sentence."""

from __future__ import annotations

import ast
import json
import textwrap
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rattler import MatchSpec as RattlerSpec

from jupyter_agent.environments.definitions import Definition, Kind, this_platform
from jupyter_agent.environments.locking.writing import content_hashes
from jupyter_agent.environments.specs import Explicit, Spec, parse
from jupyter_agent.environments.specs.matchspecs import PLATFORMS, wanted
from jupyter_agent.environments.specs.project import our_python
from jupyter_agent.environments.specs.selectors import selected
from jupyter_agent.errors import InvalidInput, NotFound
from tests.conftest import BUDGETS

LINUX = ("linux-64",)


def spec(text: str, name: str = "environment.yml", **included: str) -> Spec:
    """What a text asks for on linux-64."""
    found = Definition.of(name, textwrap.dedent(text))
    return parse(Definition(found.name, found.kind, found.text, included), platforms=LINUX)


def conda(text: str) -> Sequence[str]:
    return spec(text).conda["linux-64"]


def urls(found: Spec) -> list[str]:
    return [channel.url for channel in found.asked.channels]


def asked(found: Spec, platform: str = "linux-64") -> dict[str, str]:
    return {f"{each.manager}:{each.name}": getattr(each, "version", "") for each in found.asked.dependencies[platform]}


# environment.yml


def test_an_environment_is_read_with_all_its_parts() -> None:
    found = spec(
        """
        name: mine
        channels: [conda-forge, nodefaults, "https://example.org/c"]
        dependencies:
          - python=3.11
          - NumPy >= 1.26, < 3
          - bioconda::samtools
          - pip=24
          - pip:
            - rich[jupyter]>=13 ; python_version > "3.8"
            - --extra-index-url https://example.org/simple
            - -c limits.txt
            - -r more.txt
        variables:
          PLAIN: text
          YES: yes
          NUMBER: 1.10
          EMPTY:
        """,
        **{"limits.txt": "rich<15", "more.txt": "humanize"},
    )
    assert found.conda == {"linux-64": ("python 3.11.*", "numpy >=1.26,<3", "bioconda::samtools", "pip 24.*")}
    assert found.pip == {"linux-64": ('rich[jupyter]>=13 ; python_version > "3.8"', "humanize")}
    assert found.pip_options == ("--extra-index-url https://example.org/simple",)
    assert found.pip_constraints == ("rich<15",)
    assert found.variables == {"PLAIN": "text", "YES": "yes", "NUMBER": "1.10", "EMPTY": ""}
    assert urls(found) == ["conda-forge", "https://example.org/c", "bioconda"]
    assert found.source == "environment.yml"
    assert found.warnings == ()
    assert asked(found) == {
        "conda:python": "3.11.*",
        "conda:numpy": ">=1.26,<3",
        "conda:samtools": "",
        "conda:pip": "24.*",
        "pip:rich": ">=13",
        "pip:humanize": "*",
    }


def test_pip_comes_along_where_it_is_not_asked_for() -> None:
    assert conda("dependencies: [python, pip: [rich]]") == ("python", "pip *")
    assert conda("dependencies: [python, pip: []]") == ("python",)
    assert conda("dependencies: [python, {pip: }]") == ("python",)


def test_what_is_added_is_not_what_is_there() -> None:
    text = "dependencies: [python 3.12.*, ipykernel, pip: [Nb_Format]]"
    extra = ("ipykernel >=6.29", "nb-format", "papermill", "python >=3.11")
    found = parse(Definition.of("environment.yml", text), platforms=LINUX, extra=extra)
    assert found.conda["linux-64"] == ("python 3.12.*", "ipykernel", "pip *", "papermill")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dependencies: [a]", ["conda-forge"]),
        ("channels:\ndependencies: [a]", ["conda-forge"]),
        ("channels: [nodefaults]\ndependencies: [a]", ["conda-forge"]),
        ("channels: [a, b, a]\ndependencies: [c]", ["a", "b"]),
        ("dependencies: ['bioconda::a']", ["conda-forge", "bioconda"]),
        ("channels: [bioconda]\ndependencies: ['bioconda::a']", ["bioconda"]),
        ("channels: [conda-forge/label/dev]\ndependencies: [a]", ["conda-forge/label/dev"]),
        ("channels: ['file:///srv/c']\ndependencies: [a]", ["file:///srv/c"]),
        ("channels: ['https://u:p@example.org/c']\ndependencies: [a]", ["https://u:p@example.org/c"]),
        ("dependencies: ['a[channel=https://example.org/c]']", ["conda-forge", "https://example.org/c"]),
    ],
)
def test_channels_come_in_the_order_in_which_they_are_named(text: str, found: list[str]) -> None:
    assert urls(spec(text)) == found


def test_defaults_are_not_added_where_a_file_forbids_them() -> None:
    definition = Definition.of("environment.yml", "channels: [nodefaults]\ndependencies: [a]")
    assert urls(parse(definition, default_channels=("defaults", "conda-forge"))) == ["conda-forge"]
    with pytest.raises(InvalidInput, match="names no channel"):
        parse(definition, default_channels=("defaults",))


def test_platforms_are_those_asked_for_else_the_files_else_ours() -> None:
    named = Definition.of("environment.yml", "platforms: [osx-arm64, win-64]\ndependencies: [a]")
    unnamed = Definition.of("environment.yml", "dependencies: [a]")
    assert list(parse(named).conda) == ["osx-arm64", "win-64"]
    assert list(parse(named, platforms=("linux-aarch64",)).conda) == ["linux-aarch64"]
    assert list(parse(unnamed).conda) == [this_platform()]
    with pytest.raises(InvalidInput, match="which conda does not know"):
        parse(unnamed, platforms=("linux",))


def test_what_is_said_twice_is_asked_for_together() -> None:
    found = spec("dependencies: [numpy >=1.26, 'numpy <3', python]")
    assert found.conda["linux-64"] == ("numpy >=1.26", "numpy <3", "python")
    assert asked(found) == {"conda:numpy": ">=1.26,<3", "conda:python": ""}


def test_keys_that_are_not_known_are_told() -> None:
    found = spec("dependencies: [a]\nchanels: [b]\nname: x\nprefix: /x")
    assert found.warnings == ("environment.yml: 'chanels' is not known and not heard.",)


# Selectors


@pytest.mark.parametrize(
    ("selector", "platforms"),
    [
        ("linux", {"linux-64", "linux-aarch64"}),
        ("unix", {"linux-64", "linux-aarch64", "osx-arm64"}),
        ("not win", {"linux-64", "linux-aarch64", "osx-arm64"}),
        ("linux64", {"linux-64"}),
        ("osx and arm64", {"osx-arm64"}),
        ("x86_64", {"linux-64", "win-64"}),
        ("(linux or osx) and not aarch64", {"linux-64", "osx-arm64"}),
        ("win or linux and aarch64", {"win-64", "linux-aarch64"}),
        ("s390x", set()),
    ],
)
def test_a_selector_chooses_platforms(selector: str, platforms: set[str]) -> None:
    text = f"dependencies:\n- python\n- chosen  # [{selector}]\n"
    found = parse(
        Definition.of("environment.yml", text), platforms=("linux-64", "linux-aarch64", "osx-arm64", "win-64")
    )
    assert {platform for platform, specs in found.conda.items() if "chosen" in specs} == platforms


def test_a_selector_takes_along_what_is_below_its_line() -> None:
    text = "dependencies:\n- python\n- pip:  # [win]\n  - pywin32\n\n  - winpty\n- numpy\n"
    assert conda(text) == ("python", "numpy")


def test_a_comment_is_no_selector() -> None:
    text = "dependencies:\n- python  # see [1]\n- numpy # pinned [by us]\n# [win]\n- 'x'  # only here [linux]\n"
    assert conda(text) == ("python", "numpy", "x")
    assert "x" not in parse(Definition.of("environment.yml", text), platforms=("win-64",)).conda["win-64"]


def test_variables_may_differ_by_platform_when_one_is_locked_at_a_time() -> None:
    text = "dependencies: [a]\nvariables:\n  WHERE: here  # [linux]\n  WHERE: there  # [win]\n"
    definition = Definition.of("environment.yml", text)
    assert parse(definition, platforms=("win-64",)).variables == {"WHERE": "there"}
    with pytest.raises(InvalidInput, match="lock one platform at a time"):
        parse(definition, platforms=("linux-64", "win-64"))


@pytest.mark.parametrize(
    "selector", ["py39", "linux and", "and", "(linux", "linux)", "not", "linux osx", "win == 1", "a" * 9000]
)
def test_a_selector_that_is_not_known_is_told(selector: str) -> None:
    with pytest.raises(InvalidInput, match=r"environment\.yml, line 2: the selector \[.{1,60}\] is not known"):
        spec(f"dependencies:\n- a  # [{selector}]\n")


@settings(max_examples=BUDGETS["definition_examples"], deadline=None)
@given(
    st.lists(st.sampled_from(["linux", "win", "osx", "not", "and", "or", "(", ")", "arm64", "py3", "&"]), max_size=12),
    st.sampled_from(sorted(PLATFORMS)),
)
def test_any_selector_is_python_or_told(words: list[str], platform: str) -> None:
    """A selector means what Python would make of it with each word as a truth value."""
    expression = " ".join(words)
    system, _, machine = platform.partition("-")
    names = {name: name in (system, machine) for name in ("linux", "win", "osx", "arm64")}
    try:
        kept = selected(f"x  # [{expression}]", platform, "f")
    except InvalidInput:
        assert not is_logic(expression, names)
    else:
        assert words == [] or is_logic(expression, names)
        assert bool(kept) is (eval(expression, {}, names) if words else True)  # noqa: S307 - words of our own


def is_logic(expression: str, names: dict[str, bool]) -> bool:
    """Whether it is a Python expression of known names, ``not``, ``and``, ``or`` and brackets alone."""
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        return False
    allowed = (ast.Expression, ast.BoolOp, ast.UnaryOp, ast.Not, ast.And, ast.Or, ast.Name, ast.Load)
    return all(isinstance(node, allowed) and getattr(node, "id", "linux") in names for node in ast.walk(tree))


# conda's words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python=3.11", "python 3.11.*"),
        ("python==3.11", "python ==3.11"),
        ("python 3.11", "python ==3.11"),
        ("python  = 3.11", "python 3.11.*"),
        ("numpy 1.*", "numpy 1.*"),
        ("numpy>=1.2,<2", "numpy >=1.2,<2"),
        ("numpy >= 1.2, < 2", "numpy >=1.2,<2"),
        ("numpy\t>=1", "numpy >=1"),
        ("numpy=1.2|1.4", "numpy 1.2.*|==1.4"),
        ("numpy ~=1.3", "numpy ~=1.3"),
        ("numpy >1.*", "numpy >1"),
        ("numpy=", "numpy"),
        ("NumPy", "numpy"),
        ("pkg=1.2=build_0", "pkg ==1.2 build_0"),
        ("pkg 1.2 build_0", "pkg ==1.2 build_0"),
        ("pkg=1.2=*cuda*", "pkg ==1.2 *cuda*"),
        ("libblas=*=*openblas", "libblas * *openblas"),
        ("conda-forge::x", "conda-forge::x"),
        ("conda-forge::x=1", "conda-forge::x 1.*"),
        ("conda-forge/linux-64::x", "conda-forge/linux-64::x"),
        ("conda-forge/label/dev::x", "conda-forge/label/dev::x"),
        ("https://example.org/c::x", 'x[channel="https://example.org/c/"]'),
        ("file:///srv/c::x", 'x[channel="file:///srv/c/"]'),
        ("x[channel=bioconda,version='>=1']", "bioconda::x >=1"),
        ("pkg[version='>=1.2',build=py_0]", "pkg >=1.2 py_0"),
        ("pkg=1.0[build=py_0]", "pkg 1.0.* py_0"),
        ("pkg[build_number='>=2']", 'pkg[build_number=">=2"]'),
        (f"pkg[md5={'0' * 32}]", f'pkg[md5="{"0" * 32}"]'),
        ("pkg=1.0  # why", "pkg 1.0.*"),
        ("__glibc>=2.17", "__glibc >=2.17"),
        ("_libgcc_mutex=0.1", "_libgcc_mutex 0.1.*"),
        ("https://example.org/c/noarch/x-1-0.conda", 'x[url="https://example.org/c/noarch/x-1-0.conda"]'),
        (
            f"https://example.org/c/noarch/x-1-0.tar.bz2#{'a' * 32}",
            f'x[md5="{"a" * 32}", url="https://example.org/c/noarch/x-1-0.tar.bz2"]',
        ),
    ],
)
def test_condas_words_are_taken_as_conda_takes_them(text: str, words: str) -> None:
    assert wanted(text, "f").words == words
    assert str(RattlerSpec(words, strict=True)) == words


BAD_SPECS = {
    "": "has an empty dependency",
    "num py": "'py' is no version; if it is a package, give it a line of its own",
    "a b c d": "is no version",
    "numpy 1.2 build extra": "is no build",
    "numpy 1.0 >=2": "which conda cannot read",
    "numpy[extra]": "conda packages have no extras",
    "numpy[extra]>=2": "conda packages have no extras",
    "numpy; sys_platform == 'win32'": "markers are for packages under 'pip:'",
    "--index-url": "an option: put options of pip under 'pip:'",
    "--index-url=https://example.org": "an option",
    "-e .": "an option",
    "a\n--index-url https://example.org": "which is more than one line",
    "a\x1b[31m": "which is more than one line",
    "./x-1-0.conda": "a path",
    "x-1-0.conda": "a path",
    "/srv/x": "a path",
    "~/x": "a path",
    "*": "which names no package",
    "conda-forge::*": "which names no package",
    "=1.2": "which conda cannot read",
    "3.11": "a version without a package: write 'python 3.11'",
    "numpy==": "which conda cannot read",
    "numpy=>1": "write '>=' or '<='",
    "numpy@1.2": "is no package's name",
    "näme": "is no package's name",
    "::x": "has the channel ''",
    "./c::x": "a path",
    "a b::x": "has the channel 'a b'",
    "a::b::c": "which conda cannot read",
    "x[foo=1]": "which conda cannot read",
    "x[url='https://example.org/x-1-0.conda']": "'url' means nothing there",
    "x[md5=12]": "which conda cannot read",
    "https://example.org/x.conda": "is called NAME-VERSION-BUILD.conda",
    "https://example.org/c/noarch/x-1-0.conda#12": "ends in no md5",
    "https://user:secret@example.org/x.conda": "is called NAME-VERSION-BUILD.conda",
    "x" * 2000: "no package is so named",
}


@pytest.mark.parametrize("text", BAD_SPECS)
def test_a_dependency_that_is_none_is_told(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec(json.dumps({"dependencies": ["python", text]}))
    said = str(caught.value)
    assert BAD_SPECS[text] in said
    assert said.startswith("environment.yml")
    assert "secret" not in said
    assert "\n" not in said


# Wrong types and wrong words

BAD_ENVIRONMENTS = {
    "": "is empty",
    "# nothing\n": "is empty",
    "- a\n": "is a list",
    "3": "is one value ('3')",
    "python numpy": "is one value ('python numpy')",
    "not: [closed": "is not YAML",
    "dependencies:\n\t- a": "a tab, where YAML takes spaces only",
    "channels: [a]": "asks for nothing",
    "dependencies:": "asks for nothing",
    "dependencies: []": "asks for nothing",
    "dependencies: {}": "asks for nothing",
    "dependencies: {a: b}": "'dependencies' is no list",
    "dependencies: a": "'dependencies' is no list",
    "dependencies: 3": "'dependencies' is no list",
    "dependencies: [3]": "asks for 3 (int), which is no text",
    "dependencies: [3.11]": "asks for 3.11 (float), which is no text",
    "dependencies: [null]": "asks for nothing (None), which is no text",
    "dependencies: [true]": "asks for True (bool), which is no text",
    "dependencies: [2026-01-01]": "which is no text",
    "dependencies: [[a]]": "asks for ['a'] (list), which is no text",
    "dependencies: [{}]": "only 'pip:' has a list of its own",
    "dependencies: [python: 3.11]": "has 'python' with a colon among the dependencies",
    "dependencies: [{npm: [a]}]": "has 'npm' with a colon",
    "dependencies: [{pip: [a], npm: [b]}]": "has 'npm' with a colon",
    "dependencies: [{1: [a]}]": "has '1' with a colon",
    "dependencies: [pip: a]": "'pip' is no list",
    "dependencies: [pip: {a: b}]": "'pip' is no list",
    "dependencies: [pip: [1]]": "asks pip for '1', which is no text",
    "dependencies: [pip: [null]]": "asks pip for 'None', which is no text",
    "dependencies: [pip: ['']]": "has an empty line for pip",
    'dependencies: [pip: ["a\\n--index-url https://x"]]': "which is more than one line",
    "dependencies: [pip: ['a \\']]": "which is more than one line",
    "dependencies: [pip: ['-e .']]": "a path",
    "dependencies: [pip: ['-e git+https://example.org/x.git']]": "a path",
    "dependencies: [pip: ['.']]": "a path",
    "dependencies: [pip: ['../x']]": "a path",
    "dependencies: [pip: ['x @ file:///srv/x']]": "a path",
    "dependencies: [pip: ['file:///srv/x.whl']]": "a path",
    "dependencies: [pip: ['wheels/x-1-py3-none-any.whl']]": "a path",
    "dependencies: [pip: ['--find-links wheels']]": "cannot be an index",
    "dependencies: [pip: ['--no-deps']]": "which has no meaning here",
    "dependencies: [pip: ['a b']]": "which is no requirement",
    "dependencies: [pip: ['a==']]": "which is no requirement",
    "dependencies: [pip: ['a=1']]": "which is no requirement",
    "dependencies: [pip: ['a; bogus == 1']]": "which is no requirement",
    "dependencies: [pip: ['https://example.org/']]": "which names no package",
    "dependencies: [pip: ['https://[']]": "which names no package",
    "dependencies: [pip: ['x @ https://[']]": "which is no requirement",
    "dependencies: [pip: ['git+https://']]": "which is no requirement",
    "dependencies: [pip: ['-r gone.txt']]": "there is no such file",
    "dependencies: [pip: ['-r ../gone.txt']]": "there is no such file",
    "dependencies: [pip: ['-r https://example.org/r.txt']]": "not in the package",
    "channels: conda-forge\ndependencies: [a]": "'channels' is no list",
    "channels: {a: b}\ndependencies: [a]": "'channels' is no list",
    "channels: [1]\ndependencies: [a]": "has the channel 1 (int), which is no text",
    "channels: [null]\ndependencies: [a]": "which is no text",
    "channels: ['']\ndependencies: [a]": "has the channel ''",
    "channels: ['a b']\ndependencies: [a]": "has the channel 'a b'",
    "channels: ['--override']\ndependencies: [a]": "has the channel '--override'",
    'channels: ["a\\nb"]\ndependencies: [a]': "has the channel",
    "channels: [./here]\ndependencies: [a]": "a path that means another folder in each run",
    "channels: ['https://[']\ndependencies: [a]": "is no URL",
    "platforms: linux-64\ndependencies: [a]": "'platforms' is no list",
    "platforms: [linux]\ndependencies: [a]": "which conda does not know",
    "platforms: [1]\ndependencies: [a]": "which conda does not know",
    "variables: [a]\ndependencies: [a]": "'variables' is no mapping",
    "variables: {A: [1]}\ndependencies: [a]": "the variable A is no text",
    "variables: {'A B': 1}\ndependencies: [a]": "has the variable 'A B'",
    "variables: {A=B: 1}\ndependencies: [a]": "has the variable 'A=B'",
    "pip-repositories: a\ndependencies: [a]": "is no list of URLs",
    "pip-repositories: ['--pre']\ndependencies: [a]": "is no list of URLs",
    "dependencies: [a]\ndependencies: [b]": "has the key 'dependencies' twice",
    "a: " + "[" * 100_000: "nested deeper",
    "- " * 100_000: "nested deeper than 30 levels",
}


@pytest.mark.parametrize("text", BAD_ENVIRONMENTS, ids=lambda text: text[:40])
def test_an_environment_that_cannot_be_used_is_told_why(text: str) -> None:
    with pytest.raises((InvalidInput, NotFound)) as caught:
        spec(text)
    assert BAD_ENVIRONMENTS[text] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@example.org/a b",
        "https://user:other@secret@example.org/a b",
        "https://example.org/t/secret/a b",
        f"https://user:secret{'x' * 200}@example.org/a b",
    ],
)
def test_credentials_are_in_no_sentence(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec(f"channels: ['{url}']\ndependencies: [a]")
    assert "secret" not in str(caught.value)
    assert "https://" in str(caught.value)


def test_content_hashes_do_not_depend_on_passwords() -> None:
    def hashes(url: str) -> dict[str, str]:
        return content_hashes(spec(f"channels: ['{url}']\ndependencies: [a]"))

    assert hashes("https://user:one@h.test/c") == hashes("https://user:two@h.test/c") == hashes("https://h.test/c")
    assert hashes("https://h.test/t/token/c") == hashes("https://h.test/c") != hashes("https://h.test/d")


# requirements.txt


def test_requirements_are_pips_part_with_our_python() -> None:
    found = spec(
        "numpy>=2\nrich ; sys_platform == 'win32'\n--pre\n-c c.txt\n", "requirements.txt", **{"c.txt": "numpy<3"}
    )
    assert found.conda == {"linux-64": (f"python {our_python()}", "pip")}
    assert found.pip == {"linux-64": ("numpy>=2",)}
    assert found.pip_options == ("--pre",)
    assert found.pip_constraints == ("numpy<3",)


@pytest.mark.parametrize(
    ("line", "manager", "kind", "name"),
    [
        ("x>=1,<2", "pip", "VersionedDependency", "x"),
        ("X_Y.Z[a,b]~=1.3", "pip", "VersionedDependency", "x-y-z"),
        ("x===1.0+local", "pip", "VersionedDependency", "x"),
        ("x==1.* --hash=sha256:00", "pip", "VersionedDependency", "x"),
        ("x @ https://example.org/x-1-py3-none-any.whl", "pip", "URLDependency", "x"),
        ("x @ http://example.org/x.zip", "pip", "URLDependency", "x"),
        ("https://example.org/my_pkg-1.0-py3-none-any.whl", "pip", "URLDependency", "my-pkg"),
        ("http://example.org/my-pkg-1.0.tar.gz", "pip", "URLDependency", "my-pkg"),
        ("git+https://example.org/a/repo.git@v1", "pip", "VCSDependency", "repo"),
        ("git+ssh://git@example.org/a/repo.git#egg=other&subdirectory=src", "pip", "VCSDependency", "other"),
        ("x @ git+https://example.org/a/repo.git@v1", "pip", "VCSDependency", "x"),
        ("x ; python_version < '3.9' and sys_platform == 'linux'", "pip", "VersionedDependency", "x"),
    ],
)
def test_a_requirement_is_kept_as_it_is_and_modelled(line: str, manager: str, kind: str, name: str) -> None:
    found = spec(line, "requirements.txt")
    assert found.pip["linux-64"] == (line,)
    modelled = found.asked.dependencies["linux-64"][-1]
    assert (modelled.manager, type(modelled).__name__, modelled.name) == (manager, kind, name)


def test_the_parts_of_a_repositorys_url_are_told_apart() -> None:
    found = spec("git+ssh://git@example.org/a/repo.git@v1#egg=x&subdirectory=src", "requirements.txt")
    modelled: Any = found.asked.dependencies["linux-64"][-1]
    assert (modelled.source, modelled.rev, modelled.subdirectory) == ("ssh://git@example.org/a/repo.git", "v1", "src")


def test_constraints_are_looked_at_too() -> None:
    with pytest.raises(InvalidInput, match="'--no-deps' to pip, which has no meaning here"):
        spec("x\n-c c.txt", "requirements.txt", **{"c.txt": "--no-deps"})


# pyproject.toml


def test_a_project_is_pips_part_with_a_python_it_is_for() -> None:
    found = spec("[project]\ndependencies = ['numpy>=2', 'rich']\nrequires-python = '>=3.10'\n", "pyproject.toml")
    assert found.pip == {"linux-64": ("numpy>=2", "rich")}
    assert found.conda == {"linux-64": (f"python {our_python()},>=3.10", "pip")}
    other = spec("[project]\ndependencies = ['numpy']\nrequires-python = '<3.10,>=3.8'\n", "pyproject.toml")
    assert other.conda == {"linux-64": ("python <3.10,>=3.8", "pip")}


def test_a_project_in_conda_locks_words() -> None:
    found = parse(
        Definition.of(
            "pyproject.toml",
            textwrap.dedent(
                """
                [project]
                dependencies = ["numpy>=2", "torch", "Humanize[x]>=4 ; sys_platform == 'linux'"]
                optional-dependencies.dev = ["pytest"]
                [tool.conda-lock]
                channels = ["conda-forge", "nodefaults", "bioconda"]
                platforms = ["linux-64", "osx-arm64"]
                pip-repositories = ["https://example.org/simple"]
                [tool.conda-lock.dependencies]
                sqlite = ">=3.40"
                openblas = "=*=*mkl"
                humanize = {source = "pypi"}
                """
            ),
        )
    )
    assert found.conda == {
        "linux-64": ("numpy >=2", "pytorch", "sqlite >=3.40", "openblas * *mkl", f"python {our_python()}", "pip"),
        "osx-arm64": ("numpy >=2", "pytorch", "sqlite >=3.40", "openblas * *mkl", f"python {our_python()}"),
    }
    assert found.pip == {"linux-64": ("humanize[x]>=4 ; sys_platform == 'linux'",), "osx-arm64": ()}
    assert urls(found) == ["conda-forge", "bioconda"]
    assert found.pip_options == ("--extra-index-url https://example.org/simple",)


def test_a_project_of_poetrys() -> None:
    found = spec(
        """
        [tool.poetry.dependencies]
        python = "^3.10"
        requests = "^2.31"
        rich = {version = "~13.7", extras = ["jupyter"]}
        exact = "1.2.3"
        any = "*"
        there = {git = "https://example.org/there.git", tag = "v1"}
        wheel = {url = "https://example.org/wheel-1-py3-none-any.whl"}
        unneeded = {version = "1", optional = true}
        [tool.poetry.group.dev.dependencies]
        pytest = "*"
        """,
        "pyproject.toml",
    )
    assert found.conda == {"linux-64": ("python >=3.10.0,<4.0.0", "pip")}
    assert found.pip["linux-64"] == (
        "requests>=2.31.0,<3.0.0",
        "rich[jupyter]>=13.7.0,<13.8.0",
        "exact==1.2.3",
        "any",
        "there @ git+https://example.org/there.git@v1",
        "wheel @ https://example.org/wheel-1-py3-none-any.whl",
    )


BAD_PROJECTS = {
    "[project": "is not TOML",
    "[project]\ndependencies = 1": "is no list of texts",
    "[project]\ndependencies = ['a b']": "which is no requirement",
    "[project]\ndependencies = ['./x']": "a path",
    "[project]\ndynamic = ['dependencies']": "leaves its dependencies to its build",
    "[project]\nrequires-python = 3": "requires-python is no text",
    "[project]\nrequires-python = 'new'": "which is no version",
    "[tool]\nconda-lock = 1": "'conda-lock' is no table",
    "[tool.conda-lock]\nchannels = 'a'": "channels is no list of texts",
    "[tool.conda-lock]\nchannels = [1]": "channels is no list of texts",
    "[tool.conda-lock]\nchannels = ['']": "has the channel ''",
    "[tool.conda-lock]\nplatforms = ['linux']": "which conda does not know",
    "[tool.conda-lock]\npip-repositories = ['--pre']": "are URLs",
    "[tool.conda-lock]\ndefault-non-conda-source = 'npm'": "is 'conda' or 'pip'",
    "[tool.conda-lock]\ndependencies = ['a']": "is no table",
    "[tool.conda-lock.dependencies]\na = 1": "is no version and no table of texts",
    "[tool.conda-lock.dependencies]\na = 'b c d'": "is no version",
    '[tool.conda-lock.dependencies]\na = "1\\n--pre"': "is no version and no table of texts",
    "[tool.poetry.dependencies]\na = 1": "is no version and no table of texts",
    "[tool.poetry.dependencies]\na = ['1', '2']": "is no version and no table of texts",
    "[tool.poetry.dependencies]\na = {version = 1}": "is no version and no table of texts",
    "[tool.poetry.dependencies]\na = {path = '../a'}": "a path",
    "[tool.poetry.dependencies]\na = {}": "conda_lock cannot read",
    "[tool.poetry.dependencies]\na = 'x y'": "asks for a 'xy', which is no version",
    "[tool.poetry.dependencies]\na = '~'": "conda_lock cannot read",
    "[tool.poetry.dependencies]\na = '1.2 || 2'": "which is no requirement",
    "[tool.flit.metadata]\nrequires = 'a'": "is no list of texts",
}


@pytest.mark.parametrize("text", BAD_PROJECTS)
def test_a_project_that_cannot_be_used_is_told_why(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(Definition.of("pyproject.toml", text))
    assert BAD_PROJECTS[text] in str(caught.value)
    assert "\n" not in str(caught.value)


# Explicit lists


def test_an_explicit_list_is_taken_as_it_is() -> None:
    sha = "b" * 64
    found = parse(
        Definition.of(
            "spec-file.txt",
            "# platform: linux-64\n@EXPLICIT\n"
            f"https://example.org/c/linux-64/python-3.11.7-h1_0.conda#{'a' * 32}\n"
            f"file:///srv/c/noarch/my-pkg-1-py_0.tar.bz2#sha256:{sha}\n",
        ),
        extra=("ipykernel",),
    )
    assert found.explicit == {
        "linux-64": (
            Explicit("https://example.org/c/linux-64/python-3.11.7-h1_0.conda", md5="a" * 32),
            Explicit("file:///srv/c/noarch/my-pkg-1-py_0.tar.bz2", sha256=sha),
        )
    }
    assert [package.parts for package in found.explicit["linux-64"]] == [
        ("python", "3.11.7", "h1_0"),
        ("my-pkg", "1", "py_0"),
    ]
    assert urls(found) == ["https://example.org/c", "file:///srv/c"]
    assert asked(found) == {"conda:python": "3.11.7", "conda:my-pkg": "1"}


def test_pips_packages_in_its_comments_are_told_not_to_be_heard() -> None:
    found = spec(
        "@EXPLICIT\nhttps://example.org/c/linux-64/x-1-0.conda\n# pip rich @ https://example.org/r.whl\n",
        "explicit.txt",
    )
    assert found.warnings == ("explicit.txt: 1 packages of pip stand in comments (rich, ...): they are not heard.",)


BAD_LISTS = {
    "": "lists no packages",
    "numpy": "line 2 says 'numpy': below @EXPLICIT stand URLs alone",
    "./x-1-0.conda": "stand URLs alone",
    "https://example.org/c/linux-64/x.conda": "is called NAME-VERSION-BUILD.conda",
    "https://example.org/x-1-0.conda": "a URL is CHANNEL/linux-64/",
    "https://example.org/c/linux-64/x-1-0.whl": "is called NAME-VERSION-BUILD.conda",
    "https://example.org/c/linux-64/x-1-0.conda#12": "ends in no md5",
    f"https://example.org/c/linux-64/x-1-0.conda#md5:{'0' * 64}": "ends in no md5",
    "https://example.org/c/linux-64/x-1-0.conda\nhttps://example.org/c/win-64/y-1-0.conda": "is for one platform",
    "https://example.org/c/linux-64/x-1-0.conda\nhttps://example.org/c/linux-64/x-2-0.conda": "is listed twice",
    "https://example.org/c/wherever/x-1-0.conda": "no platform of conda's",
    "# platform: win-64\nhttps://example.org/c/linux-64/y-1-0.conda": "is for one platform",
    "https://example.org/c/linux-64/x-1-0.conda --index-url y": "stand URLs alone",
    "https://example.org/c/win-64/x-1-0.conda": "is a list for win-64 alone: give one for linux-64",
}


@pytest.mark.parametrize("text", BAD_LISTS)
def test_a_list_that_cannot_be_used_is_told_why(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec(f"@EXPLICIT\n{text}\n", "explicit.txt")
    assert BAD_LISTS[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lock_is_not_solved_again() -> None:
    with pytest.raises(InvalidInput, match="is a lock: it is used as it is"):
        parse(Definition("conda-lock.yml", Kind.LOCK, "version: 1"))
