from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.updates import check_update, updated

NOW = Date(1_700_000_000_000)


def after(document: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    before = deepcopy(document)
    check_update(update)
    result = updated(document, update, NOW)
    assert document == before, "the old document was changed"
    return result


@pytest.mark.parametrize(
    ("document", "update", "expected"),
    [
        ({"a": 1}, {"$set": {"a": 2, "b.c": 3}}, {"a": 2, "b": {"c": 3}}),
        ({"a": [{"b": 1}]}, {"$set": {"a.0.b": 2}}, {"a": [{"b": 2}]}),
        ({"a": [1]}, {"$set": {"a.2": 5}}, {"a": [1, None, 5]}),
        ({"a": [1]}, {"$set": {"a.1.b": 5}}, {"a": [1, {"b": 5}]}),
        ({}, {"$set": {"a": {}}}, {"a": {}}),
        ({}, {"$set": {"a": {"x.y": 1}}}, {"a": {"x____y": 1}}),
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"$unset": {"a": "", "b.c": ""}}, {"b": {"d": 3}}),
        ({"a": [1, 2]}, {"$unset": {"a.0": ""}}, {"a": [None, 2]}),
        ({"a": 1}, {"$unset": {"x.y": ""}}, {"a": 1}),
        ({"a": 1}, {"$inc": {"a": 2, "b": -1.5}}, {"a": 3, "b": -1.5}),
        ({"_acl": [{"rights": 3}]}, {"$inc": {"_acl.0.rights": -1}}, {"_acl": [{"rights": 2}]}),
        ({"a": 3}, {"$mul": {"a": 2, "b": 5}}, {"a": 6, "b": 0}),
        ({"a": 3}, {"$min": {"a": 2, "b": 5}}, {"a": 2, "b": 5}),
        ({"a": 3}, {"$max": {"a": "x"}}, {"a": "x"}),
        ({}, {"$currentDate": {"a": True, "b": {"$type": "date"}}}, {"a": NOW, "b": NOW}),
        ({"a": {"b": 1}}, {"$rename": {"a.b": "c"}}, {"a": {}, "c": 1}),
        ({"a": 1}, {"$rename": {"x": "y"}}, {"a": 1}),
        ({"a": [1]}, {"$rename": {"x": "a.5"}}, {"a": [1]}),
        ({}, {"$mul": {"a.b": 5}}, {"a": {"b": 0}}),
        ({"a": 2}, {"$mul": {"a": 1.5}}, {"a": 3.0}),
        ({"a": []}, {"$min": {"a": None}}, {"a": None}),
        ({"a": [1]}, {"$max": {"a": {"x": 1}}}, {"a": [1]}),
        ({"a": [1, {"x": 1}, None]}, {"$pull": {"a": {}}}, {"a": [1, None]}),
        ({"a": [1, "x", None]}, {"$pull": {"a": {"$type": "string"}}}, {"a": [1, None]}),
        ({"a": [{"x": [{"y": 1}]}]}, {"$pull": {"a": {"x": {"$elemMatch": {"y": 1}}}}}, {"a": []}),
        ({"a": [NOW, 1]}, {"$pullAll": {"a": [NOW]}}, {"a": [1]}),
        ({"a": [1, 2]}, {"$pullAll": {"a": []}}, {"a": [1, 2]}),
        ({}, {"$pullAll": {"a": [1]}}, {}),
        ({"a": 5}, {"$currentDate": {"a": {"$type": "timestamp"}}}, {"a": NOW}),
        ({"a": 5}, {"$setOnInsert": {"a.b": 1}}, {"a": 5}),
        ({}, {"$push": {"a": 1}}, {"a": [1]}),
        ({"a": [1]}, {"$push": {"a": {}}}, {"a": [1, {}]}),
        ({"a": [1]}, {"$push": {"a": {"$each": [2, 3], "$position": 0, "$slice": 2}}}, {"a": [2, 3]}),
        ({"a": [1]}, {"$push": {"a": {"$each": [2, 3], "$slice": -2}}}, {"a": [2, 3]}),
        ({"a": [1]}, {"$addToSet": {"a": 1.0}}, {"a": [1]}),
        ({"a": [1]}, {"$addToSet": {"a": {"$each": [True, {"x": 1}, {"x": 1}]}}}, {"a": [1, True, {"x": 1}]}),
        ({"a": [1, 2, 3]}, {"$pull": {"a": {"$gte": 2}}}, {"a": [1]}),
        ({"a": [1, True, "1"]}, {"$pull": {"a": 1}}, {"a": [True, "1"]}),
        ({"a": [{"x": 1, "y": 2}, {"x": 2}]}, {"$pull": {"a": {"x": 1}}}, {"a": [{"x": 2}]}),
        ({"a": ["x1", "y"]}, {"$pull": {"a": "__REGEXP /^x/"}}, {"a": ["y"]}),
        ({"a": [[1], 1]}, {"$pull": {"a": [1]}}, {"a": [1]}),
        ({}, {"$pull": {"a": 1}}, {}),
        ({"a": [1, 2, 2, {"x": 1}]}, {"$pullAll": {"a": [2, {"x": 1}]}}, {"a": [1]}),
        ({"a": [1, 2, 3]}, {"$pop": {"a": 1}}, {"a": [1, 2]}),
        ({"a": [1, 2, 3]}, {"$pop": {"a": -1}}, {"a": [2, 3]}),
        ({"a": 1}, {"$setOnInsert": {"b": 1}}, {"a": 1}),
    ],
)
def test_operators(document: dict[str, Any], update: dict[str, Any], expected: dict[str, Any]) -> None:
    assert after(document, update) == expected


@pytest.mark.parametrize(
    ("document", "update", "sentence"),
    [
        ({}, {}, "consists of operators"),
        ({}, {"a": 1}, "consists of operators"),
        ({}, {"$set": {"a": 1}, "b": 1}, "consists of operators"),
        ({}, {"$foo": {"a": 1}}, "The update operator \\$foo is not offered"),
        ({}, {"$set": 1}, "\\$set takes an object of fields, not a number"),
        ({}, {"$set": {"a.$": 1}}, "not offered"),
        ({}, {"$set": {"a.$[].b": 1}}, "not offered"),
        ({}, {"$set": {"a..b": 1}}, "empty name"),
        ({}, {"$set": {"": 1}}, "empty name"),
        ({}, {"$set": {".".join("a" * 200): 1}}, "too long"),
        ({}, {"$set": {"a": 1, "a.b": 2}}, "at the same time"),
        ({}, {"$set": {"a": 1}, "$inc": {"a": 2}}, "at the same time"),
        ({}, {"$set": {"b": 1}, "$rename": {"a": "b"}}, "at the same time"),
        ({"a": 1}, {"$set": {"a.b": 1}}, "'a' is a number"),
        ({"a": None}, {"$set": {"a.b": 1}}, "'a' is null"),
        ({"a": [1]}, {"$set": {"a.b": 1}}, "there is a list"),
        ({"a": []}, {"$set": {"a.99999": 1}}, "the list has 0 elements only"),
        ({"a": []}, {"$set": {"a.99999999999999999999": 1}}, "there is a list"),
        ({"a": "x"}, {"$inc": {"a": 1}}, "it is a text, not a number"),
        ({"a": True}, {"$inc": {"a": 1}}, "not a number"),
        ({"a": 1}, {"$inc": {"a": "1"}}, "\\$inc takes a number"),
        ({"a": 1e308}, {"$mul": {"a": 1e308}}, "too big a number"),
        ({"a": 2**62}, {"$mul": {"a": 4}}, "too big a number"),
        ({"a": 1}, {"$push": {"a": 1}}, "it is a number, not a list"),
        ({}, {"$push": {"a": {"$each": [1], "$sort": 1}}}, "\\$sort in \\$push is not offered"),
        ({}, {"$push": {"a": {"$each": 1}}}, "\\$each takes a list"),
        ({"a": []}, {"$push": {"a": {"$each": [1], "$slice": "x"}}}, "whole number"),
        ({"a": {}}, {"$addToSet": {"a": 1}}, "it is an object, not a list"),
        ({"a": [1]}, {"$pull": {"a": {"$where": 1}}}, "\\$where is not offered"),
        ({"a": [1]}, {"$pop": {"a": 2}}, "\\$pop takes 1"),
        ({"a": [{"b": 1}]}, {"$rename": {"a.0.b": "c"}}, "cannot reach into a list"),
        ({"a": 1}, {"$rename": {"a": 5}}, "\\$rename takes the new name"),
        ({"a": 1}, {"$currentDate": {"a": "x"}}, "\\$currentDate takes true"),
        ({}, {"$set": {"a": {"$date": 1}}}, "A date"),
        ({}, {"$set": {"a": {"x____y": 1}}}, "cannot be stored"),
        ({"a": 1}, {"$pullAll": {"a": [1]}}, "it is a number, not a list"),
        ({"a": [1]}, {"$pullAll": {"a": 1}}, "\\$pullAll takes a list"),
        ({"a": None}, {"$inc": {"a": 1}}, "it is null, not a number"),
        ({"a": {}}, {"$pull": {"a": 1}}, "it is an object, not a list"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    document: dict[str, Any], update: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        after(document, update)
