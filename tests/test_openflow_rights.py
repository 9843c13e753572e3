"""Access rights by a document's ``_acl``."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent.openflow.rights import ADMINS, ROOT, USERS, Right, allowed, mask

ALL_BITS = "/" * 166 + "8="
"""How old servers wrote full control: a thousand bits, all set."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (2, 2),
        (22, Right.READ | Right.UPDATE | Right.INVOKE),
        (65535, 65535),
        (2.0, 2),
        (-1, 65535),
        (-1.0, 65535),
        (2**40, 0),
        (ALL_BITS, 65535),
        (base64.b64encode(bytes([2])).decode(), Right.READ),
        (base64.b64encode(bytes([18, 0, 255])).decode(), Right.READ | Right.INVOKE),
        (base64.b64encode(bytes([0, 1])).decode(), 256),
        ("", 0),
    ],
)
def test_rights_are_read_in_every_form_that_documents_hold(value: Any, expected: int) -> None:
    assert mask(value) == expected


@pytest.mark.parametrize("value", [None, True, -2, 2.5, float("nan"), float("inf"), "not base64!", "é", [], {"a": 1}])
def test_anything_else_gives_no_right(value: Any) -> None:
    assert mask(value) == 0


def entry(who: Any, rights: Any, **more: Any) -> dict[str, Any]:
    return {"_id": who, "name": "n", "rights": rights, **more}


def test_a_right_comes_from_the_user_or_from_a_role() -> None:
    acl = [entry("me", 2), entry("role", 16)]
    assert allowed(acl, {"me"}, Right.READ)
    assert not allowed(acl, {"me"}, Right.INVOKE)
    assert allowed(acl, {"me", "role"}, Right.READ | Right.INVOKE)
    assert not allowed(acl, {"me", "role"}, Right.READ | Right.UPDATE)
    assert not allowed(acl, {"other"}, Right.READ)
    assert not allowed(acl, set(), Right.READ)


def test_a_denied_right_is_denied_whoever_grants_it() -> None:
    acl = [entry("role", 2, deny=True), entry("me", -1)]
    assert not allowed(acl, ["me", "role"], Right.READ)
    assert allowed(acl, ["me", "role"], Right.UPDATE)
    assert not allowed(acl, ["me", "role"], Right.FULL)
    assert allowed(acl, ["me"], Right.FULL)


def test_root_may_do_everything_and_admins_only_what_is_granted() -> None:
    assert allowed([], {ROOT}, Right.FULL)
    assert allowed([entry(ROOT, 2, deny=True)], {ROOT}, Right.READ)
    assert not allowed([], {ADMINS, USERS}, Right.READ)


@pytest.mark.parametrize("acl", [None, {}, "text", 5, [None, "x", [], 7], [{}], [{"_id": "me"}], [entry(["me"], -1)]])
def test_an_acl_of_another_shape_grants_nothing(acl: Any) -> None:
    assert not allowed(acl, {"me"}, Right.READ)


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["_id", "rights", "deny", "x"]), inner, max_size=4)
    ),
)


@settings(max_examples=500, deadline=None)
@given(odd)
def test_no_acl_makes_it_fail(acl: Any) -> None:
    assert allowed(acl, {"someone"}, Right.READ) in (True, False)
