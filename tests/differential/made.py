"""Documents, queries, updates and aggregates as Hypothesis makes them: few names and values, so that much meets."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from jupyter_agent.hub.data.documents import Date

Strategy = st.SearchStrategy[Any]

scalars: Strategy = st.sampled_from(
    [None, None, 0, 1, 1, 2, -1, 2.5, True, False, "", "a", "a", "b", "ab", Date(1), Date(1), Date(2)]
)
values: Strategy = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "x", "0"]), inner, max_size=2)
    ),
    max_leaves=4,
)
acls: Strategy = st.lists(
    st.fixed_dictionaries({"_id": st.sampled_from(["u1", "u2"]), "rights": st.sampled_from([1, 3, 7])}), max_size=2
)
bodies: Strategy = st.fixed_dictionaries(
    {}, optional={"a": values, "b": values, "c": scalars, "tags": st.lists(scalars, max_size=3), "_acl": acls}
)
documents: Strategy = st.lists(bodies, min_size=1, max_size=4).map(
    lambda made: [{"_id": f"d{number}", **body} for number, body in enumerate(made)]
)

paths: Strategy = st.sampled_from(
    [
        "a",
        "a",
        "b",
        "b",
        "c",
        "tags",
        "_acl",
        "a.b",
        "a.a",
        "a.x",
        "a.0",
        "a.1",
        "a.0.b",
        "a.b.0",
        "b.a",
        "b.x",
        "b.0",
        "tags.0",
        "tags.1",
        "a.b.a",
        "_acl._id",
        "_acl.rights",
        "_acl.0.rights",
        "_acl.1._id",
        "c.x",
    ]
)
operands: Strategy = scalars | scalars | values
patterns: Strategy = st.sampled_from(["^a", "b$", "", "a", "A", "^$", "[ab]{2}", "a|b"])
types: Strategy = st.sampled_from(
    ["string", "object", "array", "bool", "date", "null", "int", "double", "number", 1, 2, 3, 4, 8, 9, 10, 16]
)


elements: Strategy = st.lists(operands, max_size=3)
SIMPLE: dict[str, Strategy] = {
    **dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"), operands),
    **dict.fromkeys(("$in", "$nin", "$all"), elements),
    "$exists": st.booleans(),
    "$size": st.integers(0, 2),
    "$mod": st.sampled_from([[2, 0], [2, 1], [3, -1]]),
    "$type": types | st.lists(types, min_size=1, max_size=2),
}


@st.composite
def simple_conditions(draw: st.DrawFn) -> Any:
    """One operator."""
    operator = draw(st.sampled_from([*SIMPLE, "$regex"]))
    if operator == "$regex":
        return {"$regex": draw(patterns), **draw(st.sampled_from([{}, {"$options": "i"}, {"$options": "ms"}]))}
    return {operator: draw(SIMPLE[operator])}


@st.composite
def inner_queries(draw: st.DrawFn) -> Any:
    """What an $elemMatch asks of an object."""
    return draw(
        st.dictionaries(st.sampled_from(["a", "b", "x", "_id", "rights"]), simple_conditions() | operands, max_size=2)
    )


@st.composite
def conditions(draw: st.DrawFn) -> Any:
    """What may stand behind a field's name."""
    shape = draw(st.integers(0, 9))
    if shape < 3:
        return draw(operands)
    if shape < 6:
        return draw(simple_conditions())
    return draw(NESTED[shape - 6])


NESTED: list[Strategy] = [
    st.fixed_dictionaries({"$not": simple_conditions()}),
    st.fixed_dictionaries({"$elemMatch": simple_conditions() | inner_queries()}),
    st.fixed_dictionaries(
        {"$all": st.lists(st.fixed_dictionaries({"$elemMatch": inner_queries()}), min_size=1, max_size=2)}
    ),
    st.tuples(simple_conditions(), simple_conditions()).map(lambda two: {**two[0], **two[1]})
    | patterns.map(lambda pattern: f"__REGEXP /{pattern}/i"),
]


@st.composite
def queries(draw: st.DrawFn, depth: int = 2) -> Any:
    """Conditions on fields, alone or in an $and, $or or $nor."""
    operator = draw(st.sampled_from(["", "", "$and", "$or", "$nor"])) if depth else ""
    if not operator:
        return draw(fields)
    return {operator: [draw(queries(depth - 1)) for _ in range(draw(st.integers(1, 3)))]}


fields: Strategy = st.dictionaries(paths, conditions(), min_size=1, max_size=2)
orders: Strategy = st.dictionaries(paths, st.sampled_from([1, -1]), min_size=1, max_size=2)


def is_clear(projection: dict[str, int]) -> bool:
    """Whether no path leads into another one, which MongoDB refuses."""
    split = [path.split(".") for path in projection]
    return not any(one != other and other[: len(one)] == one for one in split for other in split)


chosen: Strategy = st.dictionaries(paths, st.just(1), min_size=1, max_size=3).filter(is_clear)
projections: Strategy = (
    chosen | chosen.map(lambda made: {**made, "_id": 0}) | chosen.map(lambda made: dict.fromkeys(made, 0))
)

places: Strategy = st.sampled_from(
    [
        "a",
        "b",
        "c",
        "tags",
        "a.b",
        "a.a",
        "a.0",
        "a.1",
        "a.0.b",
        "b.x",
        "b.a",
        "tags.0",
        "tags.4",
        "_acl.0.rights",
        "n",
        "n.m",
    ]
)
lists: Strategy = st.lists(values, max_size=3)
numbers: Strategy = st.sampled_from([1, 2, -1, 0.5, 0])
modifiers: Strategy = st.fixed_dictionaries(
    {"$each": lists}, optional={"$position": st.integers(-2, 3), "$slice": st.integers(-2, 3)}
)
CHANGES: dict[str, Strategy] = {
    "$set": values,
    "$unset": st.just(""),
    "$inc": numbers,
    "$mul": numbers,
    "$min": operands,
    "$max": operands,
    "$push": values | modifiers,
    "$addToSet": values | st.fixed_dictionaries({"$each": lists}),
    "$pull": operands | simple_conditions() | inner_queries(),
    "$pullAll": lists,
    "$pop": st.sampled_from([1, -1]),
    "$rename": places,
}


@st.composite
def changes(draw: st.DrawFn) -> Any:
    """One update operator on one or two fields."""
    operator = draw(st.sampled_from(sorted(CHANGES)))
    return {operator: draw(st.dictionaries(places, CHANGES[operator], min_size=1, max_size=2))}


names: Strategy = st.sampled_from(["a", "b", "c", "n", "tags", "t", "x"])


@st.composite
def expressions(draw: st.DrawFn, depth: int = 2) -> Any:
    """A path, a constant, an object, a list, or one of the operators."""
    shape = draw(st.integers(0, 9)) if depth else 0
    if shape < 5:
        return draw(paths.map(lambda path: f"${path}"))
    if shape == 5:
        return draw(st.sampled_from([None, 1, True, "text", Date(1)]))
    if shape == 6:
        return draw(st.dictionaries(st.sampled_from(["p", "q"]), expressions(depth - 1), min_size=1, max_size=2))
    if shape == 7:
        return draw(st.lists(expressions(depth - 1), max_size=2))
    if shape == 8:
        return {"$literal": draw(values)}
    return {"$ifNull": [draw(expressions(depth - 1)), draw(expressions(depth - 1))]}


computed: Strategy = expressions() | paths.map(lambda path: {"$size": {"$ifNull": [f"${path}", []]}})
roots: Strategy = paths.map(lambda path: f"${path}")
accumulators: Strategy = st.dictionaries(
    st.sampled_from(["$sum", "$avg", "$min", "$max", "$first", "$last", "$push", "$addToSet"]),
    roots | st.sampled_from([1, 0.5]),
    min_size=1,
    max_size=1,
)
STAGES: dict[str, Strategy] = {
    "$match": fields,
    "$sort": orders.map(lambda made: {**made, "_id": 1}),
    "$skip": st.integers(0, 2),
    "$limit": st.integers(1, 3),
    "$count": st.just("n"),
    "$project": projections | st.dictionaries(names, computed, min_size=1, max_size=2),
    "$addFields": st.dictionaries(names, computed, min_size=1, max_size=2),
    "$set": st.dictionaries(paths, computed, min_size=1, max_size=1),
    "$unset": paths,
    "$unwind": roots
    | st.fixed_dictionaries(
        {"path": roots}, optional={"includeArrayIndex": st.just("i"), "preserveNullAndEmptyArrays": st.booleans()}
    ),
    "$lookup": st.fixed_dictionaries(
        {"from": st.just("other"), "localField": paths, "foreignField": paths, "as": names}
    ),
    "$group": st.tuples(
        expressions() | st.none(), st.dictionaries(st.sampled_from(["n", "t"]), accumulators, max_size=2)
    ).map(lambda pair: {"_id": pair[0], **pair[1]}),
}


@st.composite
def stages(draw: st.DrawFn) -> Any:
    """One stage."""
    name = draw(st.sampled_from(sorted(STAGES)))
    return {name: draw(STAGES[name])}


@st.composite
def pipelines(draw: st.DrawFn) -> Any:
    """One to three stages."""
    return [draw(stages()) for _ in range(draw(st.integers(1, 3)))]
