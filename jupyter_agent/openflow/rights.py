"""Access rights: who may do what with a document, by its ``_acl``.

An ``_acl`` is a list of ``{"_id", "name", "rights", "deny"}``, where ``_id`` is a user or a role. This module reads
such lists; it refuses to know where they come from. That *admins* pass the filters of queries everywhere is the
server's rule for queries, not one of documents, and is not applied here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from enum import IntFlag

ROOT = "59f1f6e6f0a22200126638d8"
ADMINS = "5a1702fa245d9013697656fb"
USERS = "5a17f157c4815318c8536c21"
ROBOTS = "5ac0850ca538fee1ebdb996c"
CUSTOMER_ADMINS = "5a1702fa245d9013697656fc"
RESELLERS = "5a1702fa245d9013697656fd"
FILESTORE_USERS = "5b6ab63c8d4a64b7c47f4a8f"
FILESTORE_ADMINS = "5b6ab63c8d4a64b7c47f4a8e"
ROBOT_USERS = "5aef0142f3683977b0aa3dd3"
ROBOT_ADMINS = "5aef0142f3683977b0aa3dd2"
ROBOT_AGENT_USERS = "5f33c29d8fe78504bd259a04"
NODERED_USERS = "5a23f18a2e8987292ddbe061"
NODERED_ADMINS = "5a17f157c4815318c8536c20"
NODERED_API_USERS = "5a17f157c4815318c8536c22"
PERSONAL_NODERED_USERS = "5a23f18a2e8987292ddbe062"
WORKITEM_QUEUE_ADMINS = "625440c4231309af5f2052cd"
WORKITEM_QUEUE_USERS = "62544134231309e2cd2052ce"
GUEST = "65cb30c40ff51e174095573c"


class Right(IntFlag):
    """What may be done with a document; combine with ``|``."""

    CREATE = 1
    READ = 2
    UPDATE = 4
    DELETE = 8
    INVOKE = 16
    FULL = 65535


def mask(value: object) -> int:
    """The rights in an entry as a bit mask, 0 to 65535.

    ``value`` is a number (-1 means all), or in old documents a base64 string of bits, the lowest first. Anything else
    gives no right.
    """
    if isinstance(value, str):
        return bits(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return 0
    if value == -1:
        return Right.FULL.value
    return int(value) & Right.FULL.value if value > 0 else 0


def bits(text: str) -> int:
    """The mask in a base64 string of bits; 0 when it is none."""
    try:
        return int.from_bytes(base64.b64decode(text, validate=True)[:2], "little")
    except (binascii.Error, ValueError):
        return 0


def allowed(acl: object, principals: Collection[str], right: Right) -> bool:
    """Whether a user may do this (all of it, where several rights are given).

    ``principals`` holds the ids of the user and of all their roles. A denied right is denied, whoever grants it;
    root may do everything.
    """
    if ROOT in principals:
        return True
    granted = denied = 0
    needed = right.value  # every document of an answer is asked: plain numbers are ten times as fast as flags
    for entry in acl if isinstance(acl, list) else []:
        if not isinstance(entry, dict) or not isinstance(who := entry.get("_id"), str) or who not in principals:
            continue
        if entry.get("deny"):
            denied |= mask(entry.get("rights"))
        else:
            granted |= mask(entry.get("rights"))
    return granted & needed == needed and not denied & needed
