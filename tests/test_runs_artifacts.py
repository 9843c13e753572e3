"""Files that a run leaves: the new and changed ones, the named ones, and nothing from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_agent.errors import NotFound
from jupyter_agent.folders import remove_tree
from jupyter_agent.runs import artifact_path
from jupyter_agent.runs.artifacts import MOST, changed, changed_since, keep, settled_snapshot, snapshot


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A private copy with three files in it."""
    folder = tmp_path / "run" / "work"
    (folder / "data").mkdir(parents=True)
    for name in ("main.py", "data/in.csv", "data/same.csv"):
        (folder / name).write_text("before")
        os.utime(folder / name, (1e9, 1e9))
    return folder


def test_new_and_changed_files_are_kept_with_their_folders(work: Path) -> None:
    before = snapshot(work)
    (work / "data" / "in.csv").write_text("after")
    (work / "out" / "deep").mkdir(parents=True)
    (work / "out" / "deep" / "plot.png").write_bytes(b"png")
    (work / "result.ipynb").write_text("{}")
    (work / "noext").write_text("12345")
    kept = keep(work.parent, work, changed(work, before), [])
    assert kept.error is None
    assert kept.artifacts == [
        {"name": "data/in.csv", "size": 5, "mimetype": "text/csv"},
        {"name": "noext", "size": 5, "mimetype": "application/octet-stream"},
        {"name": "out/deep/plot.png", "size": 3, "mimetype": "image/png"},
        {"name": "result.ipynb", "size": 2, "mimetype": "application/x-ipynb+json"},
    ]
    assert artifact_path(work.parent, "data/in.csv").read_text() == "after"
    assert (work / "data" / "same.csv").exists()


def test_a_file_rewritten_in_the_same_size_is_changed(work: Path) -> None:
    before = snapshot(work)
    (work / "main.py").write_text("BEFORE")
    assert changed(work, before) == ["main.py"]


def test_what_programs_leave_by_themselves_is_not_kept(work: Path) -> None:
    before = snapshot(work)
    for folder in ("__pycache__", "node_modules/x", ".ipynb_checkpoints", ".git"):
        (work / folder).mkdir(parents=True)
        (work / folder / "file").write_text("x")
    (work / "link").symlink_to("/etc/passwd")
    (work / "folderlink").symlink_to("/etc")
    os.mkfifo(work / "pipe")
    assert changed(work, before) == []


def test_named_files_of_the_run_are_listed_where_they_are(work: Path) -> None:
    run = work.parent
    (run / "output.ipynb").write_text("{}")
    (work / "output.ipynb").write_text("mine")
    (run / "outside").symlink_to("/etc/passwd")
    named = ["output.ipynb", "output.ipynb", "/etc/passwd", "../../x", "missing", "outside", "work", "", "a\0b"]
    kept = keep(run, work, ["output.ipynb"], named)
    assert [artifact["name"] for artifact in kept.artifacts] == ["output.ipynb", "work/output.ipynb"]
    assert artifact_path(run, "output.ipynb").read_text() == "{}"
    assert artifact_path(run, "work/output.ipynb").read_text() == "mine"


def test_a_named_file_of_the_copy_is_kept_though_unchanged(work: Path) -> None:
    kept = keep(work.parent, work, [], ["work/main.py"])
    assert kept.artifacts == [{"name": "main.py", "size": 6, "mimetype": "text/x-python"}]


def test_without_a_copy_only_named_files_are_listed(work: Path) -> None:
    (work.parent / "report.html").write_text("x")
    assert [a["name"] for a in keep(work.parent, None, [], ["report.html"]).artifacts] == ["report.html"]


def test_too_many_are_said_to_be(work: Path) -> None:
    for number in range(MOST + 5):
        (work / f"f{number:05}").touch()
    kept = keep(work.parent, work, [f"f{number:05}" for number in range(MOST + 5)], [])
    assert len(kept.artifacts) == MOST
    assert kept.error is not None
    assert " 5 were left out" in kept.error


def test_names_that_are_no_text_are_made_so(work: Path) -> None:
    before = snapshot(work)
    Path(os.fsdecode(os.fsencode(work) + b"/caf\xe9.txt")).write_text("x")
    (artifact,) = keep(work.parent, work, changed(work, before), []).artifacts
    assert artifact["name"] == "caf\ufffd.txt"
    assert artifact_path(work.parent, artifact["name"]).read_text() == "x"


def test_nothing_outside_can_be_asked_for(work: Path) -> None:
    run = work.parent
    (run.parent / "secret").write_text("x")
    (run / "artifacts").mkdir()
    (run / "artifacts" / "out").symlink_to(run.parent / "secret")
    (run / "artifacts" / "up").symlink_to(run.parent)
    for name in ("../secret", "/etc/passwd", "out", "up/secret", "..", "", "nowhere", "x" * 5000, "a\0"):
        with pytest.raises(NotFound, match="no file"):
            artifact_path(run, name)


def test_files_since_a_moment(work: Path) -> None:
    settled_snapshot(work)
    (work / "new").touch()
    moment = (work / "new").stat().st_ctime
    assert changed_since(work, moment) == ["new"]
    settled_snapshot(work)
    (work / "main.py").write_text("BEFORE")
    os.utime(work / "main.py", (1e9, 1e9))
    assert changed_since(work, moment + 1e-4) == ["main.py"]


def test_a_file_whose_time_was_set_back_is_changed(work: Path) -> None:
    before = settled_snapshot(work)
    (work / "data" / "in.csv").write_text("BEFORE")
    os.utime(work / "data" / "in.csv", (1e9, 1e9))
    assert changed(work, before) == ["data/in.csv"]
    (work / "replaced").write_text("before")
    os.utime(work / "replaced", (1e9, 1e9))
    (work / "replaced").rename(work / "main.py")
    assert changed(work, before) == ["data/in.csv", "main.py"]


def test_a_change_at_once_after_the_look_is_seen(work: Path) -> None:
    """Within the grain of file times: some milliseconds."""
    for number in range(100):
        (work / "main.py").write_text(f"{number:06}")
        before = settled_snapshot(work)
        (work / "main.py").write_text("BEFORE")
        assert changed(work, before) == ["main.py"], number


def test_reading_files_makes_no_artifacts(work: Path) -> None:
    before = settled_snapshot(work)
    for path in work.rglob("*"):
        if path.is_file():
            path.read_bytes()
    assert changed(work, before) == []


def test_a_tree_with_unwritable_parts_goes(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").touch()
    (folder / "a" / "b").chmod(0o500)
    (folder / "a").chmod(0o000)
    assert remove_tree(folder)
    assert not folder.exists()
    assert remove_tree(folder)
