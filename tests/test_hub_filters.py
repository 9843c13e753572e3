from __future__ import annotations

import pytest

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import parse_object
from jupyter_agent.hub.data.filters import compile_filter, compile_text

DAY = "2024-01-02T03:04:05.678Z"


def matches(query: str, document: str) -> bool:
    wanted = compile_filter(parse_object(query.replace("DAY", DAY), "query"))
    return wanted.matches(parse_object(document.replace("DAY", DAY), "item", names=True))


@pytest.mark.parametrize(
    ("query", "document", "expected"),
    [
        ("{}", "{}", True),
        ('{"a": 1}', '{"a": 1}', True),
        ('{"a": 1}', '{"a": [3, 1]}', True),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": null}', "{}", True),
        ('{"a.b": 2}', '{"a": [{"b": 1}, {"b": 2}]}', True),
        ('{"a.1": 2}', '{"a": [1, 2]}', True),
        ('{"a": {"b": 1}}', '{"a": {"b": 1, "c": 2}}', False),
        ('{"a": {"$gt": 1, "$lte": 3}}', '{"a": 3}', True),
        ('{"a": {"$gt": "b"}}', '{"a": 3}', False),
        ('{"a": {"$in": [1, null]}}', "{}", True),
        ('{"a": {"$nin": [1]}}', '{"a": [1]}', False),
        ('{"a": {"$exists": false}}', "{}", True),
        ('{"a": {"$all": [1, 2]}}', '{"a": [2, 1, 3]}', True),
        ('{"a": {"$size": 2}}', '{"a": [2, 1]}', True),
        ('{"a": {"$mod": [3, 1]}}', '{"a": 7}', True),
        ('{"a": {"$elemMatch": {"x": 1, "y": 2}}}', '{"a": [{"x": 1, "y": 3}, {"x": 2, "y": 2}]}', False),
        ('{"a": {"$elemMatch": {"$gt": 2, "$lt": 4}}}', '{"a": [1, 3]}', True),
        ('{"a": {"$not": {"$gt": 2}}}', '{"a": 1}', True),
        ('{"$nor": [{"a": 1}, {"b": 1}]}', '{"a": 2}', True),
        ('{"$or": [{"a": 1}, {"b": 1}], "$comment": "x"}', '{"b": 1}', True),
        ('{"a": {"$regex": "^x.z$", "$options": "i"}}', '{"a": "XYZ"}', True),
        ('{"a": {"$regex": "b"}}', '{"a": ["a", "abc"]}', True),
        ('{"a": {"$regex": "b"}}', '{"a": 5}', False),
        ('{"a": "__REGEXP /^n3/i"}', '{"a": "N3x"}', True),
        ('{"a": {"$in": ["__REGEXP /x/", "y"]}}', '{"a": "axb"}', True),
        ('{"a": {"$not": "__REGEXP /x/"}}', '{"a": "axb"}', False),
        ('{"a": {"$regex": "b", "$ne": "abc", "$in": ["abc", "b"], "$type": 2}}', '{"a": "b"}', True),
        ('{"a": {"$type": "string"}}', '{"a": [1, "x"]}', True),
        ('{"a": {"$type": "array"}}', '{"a": [1]}', True),
        ('{"a": {"$type": ["int", "null"]}}', '{"a": 5.0}', True),
        ('{"a": {"$type": "number"}}', '{"a": true}', False),
        ('{"a": {"$type": "null"}}', "{}", False),
        ('{"a": {"$elemMatch": {"b": {"$type": "date"}}}}', '{"a": [{"b": "DAY"}]}', True),
        ('{"a": {"$gte": "DAY"}}', '{"a": "DAY"}', True),
        ('{"a": {"$lt": "DAY"}}', '{"a": 5}', False),
        ('{"a": {"$gt": "2024"}}', '{"a": "DAY"}', False),
        ('{"a____b": 1}', '{"a.b": 1}', True),
        ('{"a": {"$gt": {"b": 5}}}', '{"a": {"b": "DAY"}}', True),
        ('{"a": {"$gte": ["DAY"], "$lt": ["DAY", 1]}}', '{"a": ["DAY"]}', True),
        ('{"a": {"$lt": [2]}}', '{"a": 1}', False),
        ('{"a": {"$not": {"$lte": {}}}}', '{"a": {}}', False),
        ('{"a": {"$all": [{"$elemMatch": {"x": 1}}, {"$elemMatch": {"x": 2}}]}}', '{"a": [{"x": 1}, {"x": 2}]}', True),
        ('{"a": {"$all": [{"$elemMatch": {"x": 1}}, {"$elemMatch": {"x": 3}}]}}', '{"a": [{"x": 1}, {"x": 2}]}', False),
        ('{"a": {"$all": [{"$elemMatch": {"$type": 2, "$gt": "a"}}]}}', '{"a": [1, "b"]}', True),
        ('{"a": {"$all": ["__REGEXP /^x/", "__REGEXP /y$/"]}}', '{"a": ["xa", "by"]}', True),
        ('{"$nor": [{"a": {"$type": "string"}}]}', '{"a": 1}', True),
        ('{"a": {"$not": {"$type": "array"}}}', '{"a": [1]}', False),
        ('{"a": {"$elemMatch": {"$not": {"$type": "string"}}}}', '{"a": ["x", 1]}', True),
        ('{"a": {"$mod": [4, -2]}}', '{"a": -6}', True),
        ('{"a": {"$mod": [2, 0]}}', '{"a": 2.9}', True),
        ('{"a": {"$mod": [2, 0]}}', '{"a": null}', False),
        ('{"a.b": {"$size": 1}}', '{"a": [{"b": 1}]}', False),
        ('{"a.0": 1}', '{"a": [[1]]}', False),
        ('{"_id": "5a1702fa245d9013697656fb"}', '{"_id": "5a1702fa245d9013697656fb"}', True),
        ('{"_id": "twelve chars"}', '{"_id": "twelve chars"}', True),
        ('{"_id": "__REGEXP /^5a/"}', '{"_id": "5a1702fa245d9013697656fb"}', True),
        (r'{"a": "__REGEXP /^\\u00e9\\ud83d\\ude00\\/\\-$/giuy"}', '{"a": "é😀/-"}', True),
    ],
)
def test_what_matches(query: str, document: str, *, expected: bool) -> None:
    assert matches(query, document) is expected


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ('{"$where": "1"}', "The query operator \\$where is not offered"),
        ('{"$expr": {}}', "The query operator \\$expr is not offered"),
        ('{"a": {"$near": 1}}', "The query operator \\$near is not offered"),
        ('{"a": {"$elemMatch": {"$text": 1}}}', "The query operator \\$text is not offered"),
        ('{"$and": [{"a": {"$bitsAllSet": 1}}]}', "The query operator \\$bitsAllSet is not offered"),
        ('{"a": {"$gt": 1, "b": 2}}', "The query operator b is not offered"),
        ('{"$or": []}', "nonempty list"),
        ('{"$or": {}}', "\\$or takes a list, not an object"),
        ('{"$and": [1]}', "A query must be a JSON object, not a number"),
        ('{"a": {"$in": 1}}', "\\$in takes a list"),
        ('{"a": {"$type": "text"}}', "\\$type does not know 'text'"),
        ('{"a": {"$regex": 1}}', "must be texts"),
        ('{"a": {"$regex": "x", "$options": "q"}}', "option 'q' is not offered"),
        ('{"a": {"$options": "i"}}', "\\$options needs \\$regex"),
        ('{"a": {"$regex": "(a"}}', "The regular expression /\\(a/ is not offered by this hub"),
        ('{"a": {"$regex": "(?=a)"}}', "is not offered by this hub"),
        ('{"a": {"$regex": "(a)\\\\1"}}', "is not offered by this hub"),
        ('{"a": {"$regex": "%s"}}' % ("x" * 2000), "may have 1000 characters"),
        ('{"a": {"$regex": ".{400}x"}}', "is not offered by this hub: it is too costly"),
        ('{"a": "__REGEXP /a/x"}', "option 'x' is not offered"),
        ('{"a": {"$all": [1, {"$elemMatch": {}}]}}', "cannot mix"),
        ('{"a": {"$in": [{"$type": 2}]}}', "does not accept operator expressions"),
        ('{"a": {"$type": []}}', "\\$type"),
        ('{"a": {"$type": {}}}', "\\$type does not know"),
        ('{"a": {"$not": 1}}', "\\$not takes an operator"),
        ('{"a": {"$size": -1}}', "cannot be understood"),
        ('{"a": {"$mod": [0, 1]}}', "cannot be understood"),
    ],
)
def test_what_is_no_query_is_refused_by_name(query: str, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        matches(query, "{}")


def test_a_text_that_is_too_long_for_a_costly_pattern_is_refused() -> None:
    wanted = compile_filter({"a": {"$regex": ".{200}x"}})
    assert not wanted.matches({"a": "y" * 10_000})
    with pytest.raises(InvalidInput, match="too costly for a text of 1000000 characters"):
        wanted.matches({"a": "y" * 1_000_000})


def test_queries_that_come_again_are_compiled_once() -> None:
    text = '{"a": 1}'
    assert compile_text(text) is compile_text(text)
    assert compile_text(f'{{"a": "{"x" * 3000}"}}').matches({"a": "x" * 3000})
    for _ in range(2):
        with pytest.raises(InvalidInput, match="not valid JSON"):
            compile_text("{")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x", "(a?){40}a{40}", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_no_pattern_can_hold_up_the_hub(pattern: str) -> None:
    wanted = compile_filter({"a": {"$regex": pattern}})
    wanted.matches({"a": "a" * 5000 + "!"})  # Python's own `re` would not come back from this
