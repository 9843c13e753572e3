"""conda's words for PyPI's, and PyPI's for conda's, held against those whose words they are."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from rattler import MatchSpec, VersionSpec
from rattler import Version as CondaVersion

from jupyter_agent.environments.channel import names, stand_in_words
from jupyter_agent.environments.channel.dependencies import conda_expression
from jupyter_agent.environments.channel.translation import Translation, translate
from jupyter_agent.errors import AgentError, InvalidInput

numbers = some.lists(some.integers(0, 3), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
operators = some.sampled_from([">=", "<=", ">", "<", "==", "!="])


@some.composite
def pep440(draw: some.DrawFn) -> str:
    number = draw(numbers)
    if draw(some.booleans()):
        return draw(some.sampled_from(["==", "!="])) + number + ".*"
    if "." in number and draw(some.booleans()):
        return f"~={number}"
    return draw(operators) + number


@some.composite
def condas(draw: some.DrawFn) -> str:
    """A version expression of conda's: alternatives of terms that all hold."""
    shared = pep440().filter(lambda term: not (term.startswith("==") and term.endswith(".*")))  # conda has 1.* for it
    terms = some.one_of(shared, numbers.map(lambda number: f"={number}"), numbers.map(lambda number: f"{number}.*"))
    alternatives = draw(some.lists(some.lists(terms, min_size=1, max_size=2), min_size=1, max_size=3))
    return "|".join(",".join(alternative) for alternative in alternatives)


@settings(max_examples=150, deadline=None)
@given(some.lists(pep440(), max_size=3), numbers)
def test_what_a_wheel_asks_for_means_the_same_to_the_solver(terms: list[str], version: str) -> None:
    asked = SpecifierSet(",".join(terms))
    expression = conda_expression(asked)
    found = not expression or VersionSpec(expression).matches(CondaVersion(version))
    assert found == asked.contains(Version(version))


@settings(max_examples=150, deadline=None)
@given(condas(), numbers)
def test_what_a_file_asks_of_conda_means_the_same_to_pypi(expression: str, version: str) -> None:
    (asked,) = translate([f"thing {expression}"], python="3.11.7").asked
    meant = VersionSpec(expression).matches(CondaVersion(version))
    assert any(SpecifierSet(choice).contains(Version(version)) for choice in asked.choices) == meant


@settings(max_examples=150, deadline=None)
@given(some.text(string.printable, max_size=30))
def test_whatever_a_spec_is_it_is_understood_or_refused_in_a_sentence(words: str) -> None:
    try:
        assert isinstance(translate([words], python="3.11.7"), Translation)
    except AgentError as error:
        assert str(error)  # noqa: PT017 - it may be understood, too


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("numpy", ["numpy"]),
        ("numpy 1.26.*", ["numpy==1.26.*"]),
        ("numpy ==1.26", ["numpy==1.26"]),
        ("conda-forge::numpy >=1,<2[build=py311*]", ["numpy>=1,<2"]),
        ("pytorch >=2", ["torch>=2"]),
        ("matplotlib-base", ["matplotlib"]),
        ("ruamel.yaml", ["ruamel-yaml"]),
        ("uvicorn-standard", ["uvicorn[standard]"]),
        ("thing ==1.2|==1.10", ["thing==1.10", "thing==1.2"]),
    ],
)
def test_specs_become_requirements_the_newest_alternative_first(words: str, lines: list[str]) -> None:
    (asked,) = translate([words], python="3.11.7").asked
    assert [asked.line(number) for number in range(len(asked.choices))] == lines


def test_builds_and_what_the_system_has_are_told_and_not_asked_for() -> None:
    found = translate(["_libgcc_mutex ==0.1 main", "openssl 3.*", "libffi", "python 3.11.*"], python="3.11.7")
    assert found.asked == ()
    assert dict(found.empty).keys() == {"_libgcc_mutex", "openssl", "libffi"}
    for name, spec in (("_libgcc_mutex", "==0.1"), ("openssl", "3.*")):
        assert VersionSpec(spec).matches(CondaVersion(dict(found.empty)[name]))
    assert any("Builds are conda's own" in note and "_libgcc_mutex" in note for note in found.notes)


def test_what_pypi_cannot_have_is_told_all_at_once() -> None:
    with pytest.raises(InvalidInput, match=r"gcc, nodejs and r-base .* take them out"):
        translate(["r-base", "numpy", "nodejs >=18", "gcc"], python="3.11.7")


def test_another_python_is_refused_with_the_one_there_is() -> None:
    with pytest.raises(InvalidInput, match=r"the Python that runs jupyter_agent, 3\.11\.7"):
        translate(["python 3.9.*"], python="3.11.7")


def test_a_version_that_pypi_cannot_know_is_refused() -> None:
    with pytest.raises(InvalidInput, match="knows no version like"):
        translate(["thing ==1.1.1_z_"], python="3.11.7")


def test_a_spec_is_solved_without_what_another_channel_says() -> None:
    plain = stand_in_words(["conda-forge/linux-64::numpy ==1.26 py311h_0", "pip", "x >=1,<2|3.*"])
    assert plain == ["numpy ==1.26", "pip", "x >=1,<2|3.*"]
    assert [str(MatchSpec(one, strict=True)) for one in plain]


def test_no_name_is_both_python_and_not() -> None:
    for name in names.RENAMED:
        assert not names.is_not_python(name)
        assert not names.is_support(name)
    assert not names.SUPPORT & names.NOT_PYTHON
