"""What is looked at in prefixes and of who uses them, without a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_agent.environments.prefixes import fingerprints
from jupyter_agent.environments.prefixes.builds import finish
from jupyter_agent.environments.prefixes.contents import name_in
from jupyter_agent.environments.prefixes.holds import Hold, Holds
from jupyter_agent.environments.prefixes.orders import Locked, Made
from jupyter_agent.errors import InvalidInput


def test_what_was_in_use_is_told_until_somebody_heard_it(tmp_path: Path) -> None:
    def fail(_: str) -> None:
        raise OSError(28, "No space left on device")

    holds = Holds(tmp_path)
    (tmp_path / "lost").write_text(Hold("gone", 1, 1.0, ("a", "b")).text())
    with pytest.raises(OSError, match="No space"):
        holds.lose(fail)
    heard: list[str] = []
    for _ in range(2):
        holds.lose(heard.append)
    assert heard == ["a", "b"]


def test_a_marker_that_a_package_brought_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "ready").write_text("{}")
    with pytest.raises(InvalidInput, match=r"A package puts a file where the environment's own is: ready\."):
        finish(tmp_path, Made(1), Locked(tmp_path / "lock", "0" * 64, "venv"), "")


def test_what_has_changed_is_told_in_a_few_words(tmp_path: Path) -> None:
    odd = str(fingerprints.Changes(added=("odd\udcff\n\x1b.py", "b")))
    assert odd.encode() == b"odd\\udcff\\n\\x1b.py was added, and 1 more"
    (tmp_path / "a/__pycache__").mkdir(parents=True)
    (tmp_path / "a/b.py").write_text("1")
    (tmp_path / "link").symlink_to("a")
    before = fingerprints.taken(tmp_path)
    assert sorted(before) == ["a", "a/__pycache__", "a/b.py", "link"]
    (tmp_path / "a/__pycache__/b.pyc").write_text("1")
    assert not fingerprints.changes(before, fingerprints.taken(tmp_path))
    (tmp_path / "link").unlink()
    (tmp_path / "a/b.py").chmod(0o640)
    (tmp_path / "c").mkdir()
    found = fingerprints.changes(before, fingerprints.taken(tmp_path))
    assert (found.modified, found.missing, found.added) == (("a/b.py",), ("link",), ("c",))
    assert str(found) == "a/b.py was changed, and 2 more"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("numpy>=2", "numpy"),
        ("conda-forge::ruamel.yaml =0.18 *_0", "ruamel-yaml"),
        ("https://host/c::X", "x"),
        ("a[extra] ; python_version > '3'", "a"),
        ("__glibc >=2.17", "glibc"),
        ("", ""),
        ("==1", ""),
    ],
)
def test_the_name_in_a_requirement(line: str, name: str) -> None:
    assert name_in(line).strip("-") == name
