"""Where mingo is known to differ from MongoDB. Each is a function whose docstring says what mingo does.

They are asked only about a difference that mongomock does not decide for us, and each about the smallest thing in
which the two differ: one operator on one path of one document, one operator of an update, one stage.
"""

from __future__ import annotations

from typing import Any

from jupyter_agent.hub.data.documents import Date
from tests.differential.others import Refused

Document = dict[str, Any]


# -- Queries: quirk(document, path, operator, operand)


def null_range(document: Document, path: str, operator: str, operand: Any) -> bool:
    """A missing field is neither $gte null nor $lte null; in MongoDB null and missing are equal there, too."""
    return operator in ("$gte", "$lte") and operand is None and is_lacking(document, path.split("."))


def all_null(document: Document, path: str, operator: str, operand: Any) -> bool:
    """$all never matches a missing field; in MongoDB it is an $and of equalities, and null equals missing."""
    return operator == "$all" and None in operand and is_lacking(document, path.split("."))


def index_and_null(document: Document, path: str, operator: str, operand: Any) -> bool:
    """A number in a path means an element only; MongoDB also looks for a field of that name in the list's objects."""
    asks = operand is None or (isinstance(operand, list) and None in operand) or operator == "$exists"
    names = path.split(".")
    if any(
        name.isdecimal() and isinstance(item, dict) for values, name in lists_on(document, names) for item in values
    ):
        return True
    return asks and (crosses(document, names, indexed=True) or (names[-1].isdecimal() and is_lacking(document, names)))


def empty_list_in(document: Document, path: str, operator: str, operand: Any) -> bool:
    """$in, $nin and $all do not find a list among lists of values when it is empty."""
    return operator in ("$in", "$nin", "$all") and [] in operand and [] in reached(document, path.split("."))


def remainder(document: Document, path: str, operator: str, operand: Any) -> bool:
    """$mod is JavaScript's %: null, booleans and dates are numbers, and 2.5 leaves 0.5, which MongoDB cuts off."""
    odd = (bool, type(None), float, Date, str, list)
    return operator == "$mod" and any(isinstance(value, odd) for value in spread(document, path))


def gathered(document: Document, path: str, operator: str, operand: Any) -> bool:
    """What a path finds in the objects of a list is put into one list, and $size, $type and $elemMatch look at that."""
    return operator in ("$size", "$type", "$elemMatch") and crosses(document, path.split("."))


def types_in_lists(document: Document, path: str, operator: str, operand: Any) -> bool:
    """$type does not look into a list; in MongoDB it is enough that one element is of the type."""
    return operator == "$type" and any(isinstance(value, list) for value in reached(document, path.split(".")))


def whole_numbers(document: Document, path: str, operator: str, operand: Any) -> bool:
    """A whole number is a double, too; MongoDB's driver for Node stores it as an int where it is one of 32 bits."""
    asked = operand if isinstance(operand, list) else [operand]
    return (
        operator == "$type"
        and not {1, "double"}.isdisjoint(asked)
        and any(isinstance(value, int) and not isinstance(value, bool) for value in spread(document, path))
    )


def list_at_index(document: Document, path: str, operator: str, operand: Any) -> bool:
    """Where a path ends with a number and that element is a list, the list's own elements are looked at, too."""
    *way, last = path.split(".")
    return last.isdecimal() and any(
        isinstance(values, list) and int(last) < len(values) and isinstance(values[int(last)], list)
        for values in reached(document, way)
    )


def lists_in_elements(document: Document, path: str, operator: str, operand: Any) -> bool:
    """$elemMatch looks into the lists in a list; MongoDB compares them as they are, or takes them for objects."""
    lists = [value for value in reached(document, path.split(".")) if isinstance(value, list)]
    return operator == "$elemMatch" and any(isinstance(item, list) for value in lists for item in value)


def scalars_as_objects(document: Document, path: str, operator: str, operand: Any) -> bool:
    """$elemMatch with fields takes what is no object for an object without fields."""
    lists = [value for value in reached(document, path.split(".")) if isinstance(value, list)]
    is_of_fields = operator == "$elemMatch" and not next(iter(operand), "").startswith("$")
    return is_of_fields and any(not isinstance(item, dict) for value in lists for item in value)


def paths_into_nested_lists(document: Document, path: str, operator: str, operand: Any) -> bool:
    """A path goes on in the lists of a list; MongoDB's goes on in its objects only."""
    return any(isinstance(item, list) for values, _ in lists_on(document, path.split(".")) for item in values)


FILTERS = (
    paths_into_nested_lists,
    scalars_as_objects,
    list_at_index,
    lists_in_elements,
    null_range,
    all_null,
    index_and_null,
    empty_list_in,
    remainder,
    gathered,
    types_in_lists,
    whole_numbers,
)


# -- Updates: quirk(document, operator, operand by path, what we did, what mingo did)


def conflict(document: Document, operator: str, fields: Document, ours: Any, theirs: Any) -> bool:
    """What MongoDB refuses (a scalar in the way, $inc of a text, $push on an object) is passed over in silence."""
    return isinstance(ours, Refused) and any(clashes(document, path, operator) for path in fields)


def renamed_list(document: Document, operator: str, fields: Document, ours: Any, theirs: Any) -> bool:
    """$rename takes fields out of lists; MongoDB refuses that."""
    ends = [*fields, *fields.values()] if operator == "$rename" else []
    return isinstance(ours, Refused) and any(clashes(document, path, "$rename") for path in ends)


def order_of_containers(document: Document, operator: str, fields: Document, ours: Any, theirs: Any) -> bool:
    """$min and $max compare lists, objects and dates with others otherwise than BSON's order of types does."""
    if operator not in ("$min", "$max") or isinstance(ours, Refused):
        return False
    pairs = [(each, operand) for path, operand in fields.items() for each in reached(document, path.split("."))]
    return any(isinstance(value, list | dict | Date) for pair in pairs for value in pair)


def doubled(document: Document, operator: str, fields: Document, ours: Any, theirs: Any) -> bool:
    """$addToSet with $each adds a value twice when it stands there twice, and takes doubles out that were there."""
    if operator != "$addToSet":
        return False
    lists = [operand["$each"] for operand in fields.values() if isinstance(operand, dict) and "$each" in operand]
    lists += [value for path in fields for value in reached(document, path.split(".")) if isinstance(value, list)]
    return any(value in some[:at] for some in lists for at, value in enumerate(some))


def pulled_all(document: Document, operator: str, fields: Document, ours: Any, theirs: Any) -> bool:
    """$pull with an empty object takes everything out; in MongoDB it asks for objects."""
    return operator == "$pull" and {} in fields.values()


def unsliced(document: Document, operator: str, fields: Document, ours: Any, theirs: Any) -> bool:
    """$push passes over $slice where it makes the list."""
    return operator == "$push" and any(
        isinstance(operand, dict) and "$slice" in operand and not reached(document, path.split("."))
        for path, operand in fields.items()
    )


UPDATES = (pulled_all, unsliced, conflict, renamed_list, order_of_containers, doubled)


# -- Stages: quirk(documents, stage, specification, what mingo gave)


def number_in_path(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """A number in a path is an element's place, in stages too, where MongoDB takes it for a field's name."""
    return any(name.isdecimal() for path in texts_in(value) for name in path.lstrip("$").split("."))


def join_on_nothing(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """$lookup joins an empty list with nothing; MongoDB joins it, like a missing field, with null and missing."""
    if stage != "$lookup":
        return False
    return any(not spread_of(each, value["localField"]) for each in documents)


def join_with_undefined(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """$lookup gives a list with undefined in it when one of several values is found nowhere."""
    return stage == "$lookup" and not isinstance(theirs, Refused) and any(None in each[value["as"]] for each in theirs)


def broken(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """A path that meets null in a list ends in a TypeError."""
    return isinstance(theirs, Refused) and "Cannot read properties of null" in str(theirs)


def count_of_nothing(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """$count gives a zero where no document comes in; MongoDB gives no document then."""
    return stage == "$count" and not documents


def group_of_missing(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """$push and $addToSet put null for what is missing; MongoDB leaves it out."""
    gathered = (
        [field[name] for field in value.values() if isinstance(field, dict) for name in field if name in LISTED]
        if stage == "$group"
        else []
    )
    return any(
        not reached(each, path.lstrip("$").split("."))
        for path in gathered
        if isinstance(path, str)
        for each in documents
    )


def extremes_of_lists(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """$min and $max of $group pass over lists; in MongoDB lists are values like others."""
    found = (
        [
            field[name]
            for field in value.values()
            if isinstance(field, dict)
            for name in field
            if name in ("$min", "$max")
        ]
        if stage == "$group"
        else []
    )
    paths = [path[1:].split(".") for path in found if isinstance(path, str)]
    return any(
        lists_on(each, path) or any(isinstance(end, list) for end in reached(each, path))
        for each in documents
        for path in paths
    )


LISTED = ("$push", "$addToSet")


def lists_in_lists(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """An expression's path goes through lists in lists; MongoDB's goes on in the objects of a list only."""
    paths = [text[1:].split(".") for text in texts_in(value) if text.startswith("$")]
    return any(
        isinstance(item, list)
        for each in documents
        for path in paths
        for values, _ in lists_on(each, path)
        for item in values
    )


def replaced_objects(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """An object in $addFields or $project takes the field's place; MongoDB sets the fields that are named in it.

    It does so in the objects of a list, too, and makes an object where nothing is computed.
    """
    return stage in ("$addFields", "$set", "$project") and any(
        "." in path or (isinstance(item, dict) and not next(iter(item), "").startswith("$"))
        for path, item in value.items()
        if not isinstance(item, int)
    )


def unwound_through_lists(documents: list[Document], stage: str, value: Any, theirs: Any) -> bool:
    """$unwind finds a path through lists; in MongoDB it leads through objects only."""
    path = value["path"] if isinstance(value, dict) and "path" in value else value
    return stage == "$unwind" and any(lists_on(each, path[1:].split(".")) for each in documents)


STAGES = (
    number_in_path,
    join_on_nothing,
    join_with_undefined,
    broken,
    count_of_nothing,
    group_of_missing,
    extremes_of_lists,
    lists_in_lists,
    replaced_objects,
    unwound_through_lists,
)


def spread_of(document: Document, path: str) -> list[Any]:
    """The values at the ends of a path, of lists those in them."""
    return [
        each for value in reached(document, path.split(".")) for each in (value if isinstance(value, list) else [value])
    ]


def texts_in(value: Any) -> list[str]:
    """All names and texts in a specification."""
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in texts_in(item))]
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    return [value] if isinstance(value, str) else []


# -- What paths lead to


def reached(value: Any, path: list[str]) -> list[Any]:
    """The values at the ends of a path."""
    if not path:
        return [value]
    if isinstance(value, list):
        at = [value[int(path[0])]] if path[0].isdecimal() and int(path[0]) < len(value) else []
        inner = [each for item in at for each in reached(item, path[1:])]
        return inner + [each for item in value if isinstance(item, dict) for each in reached(item, path)]
    return reached(value[path[0]], path[1:]) if isinstance(value, dict) and path[0] in value else []


def spread(document: Document, path: str) -> list[Any]:
    """The same with the elements of lists."""
    found = reached(document, path.split("."))
    return found + [item for value in found if isinstance(value, list) for item in value]


def is_lacking(value: Any, path: list[str]) -> bool:
    """Whether the path, or one of its ways through lists, ends before its end."""
    if not path:
        return False
    if isinstance(value, list):
        at = path[0].isdecimal() and int(path[0]) < len(value) and is_lacking(value[int(path[0])], path[1:])
        return at or any(is_lacking(item, path) for item in value if isinstance(item, dict))
    return not isinstance(value, dict) or path[0] not in value or is_lacking(value[path[0]], path[1:])


def lists_on(value: Any, path: list[str]) -> list[tuple[list[Any], str]]:
    """The lists through which a path leads, each with the name that is looked for in it."""
    if not path:
        return []
    if isinstance(value, list):
        at = [value[int(path[0])]] if path[0].isdecimal() and int(path[0]) < len(value) else []
        inner = [each for item in at for each in lists_on(item, path[1:])]
        return [(value, path[0]), *inner, *(each for item in value for each in lists_on(item, path))]
    return lists_on(value[path[0]], path[1:]) if isinstance(value, dict) and path[0] in value else []


def crosses(value: Any, path: list[str], *, indexed: bool = False) -> bool:
    """Whether the path leads through a list; with ``indexed`` by a number."""
    return any(name.isdecimal() or not indexed for _, name in lists_on(value, path))


NEEDED: dict[str, type | tuple[type, ...]] = {
    "$inc": (int, float), "$mul": (int, float), "$push": list, "$addToSet": list, "$pull": list, "$pullAll": list,
    "$pop": list,
}  # fmt: skip


def clashes(document: Document, path: str, operator: str) -> bool:
    """Whether MongoDB raises an error for this operator on this path."""
    value: Any = document
    *way, last = path.split(".")
    for name in [*way, last]:
        if operator == "$rename" and isinstance(value, list):
            return True
        if isinstance(value, list) and name.isdecimal():
            if int(name) >= len(value):
                return False
            value = value[int(name)]
        elif isinstance(value, dict):
            if name not in value:
                return False
            value = value[name]
        else:
            return True
    needed = NEEDED.get(operator)
    return needed is not None and (not isinstance(value, needed) or isinstance(value, bool))


# -- Sorting: quirk(documents, path)


def missing_in_lists(documents: list[Document], path: str) -> bool:
    """An object of a list that lacks the field is left out; in MongoDB it counts as null, as does what is no object."""
    names = path.split(".")
    return any(crosses(each, names) and (is_lacking(each, names) or not reached(each, names)) for each in documents)


def scalars_in_lists(documents: list[Document], path: str) -> bool:
    """What is no object in a list is left out where the path goes on; in MongoDB it counts as null."""
    return any(
        not isinstance(item, dict)
        for each in documents
        for values, _ in lists_on(each, path.split("."))
        for item in values
    )


def several_values(documents: list[Document], path: str) -> bool:
    """Of several values it is not the lowest (descending: the highest) that counts, or not in BSON's order of types."""
    return any(
        isinstance(each, list) or len(spread(document, path)) > 1
        for document in documents
        for each in reached(document, path.split("."))
    )


SORTS = (missing_in_lists, scalars_in_lists, several_values)


# -- Projections: quirk(document, path, what mingo gave)


def number_in_projection(document: Document, path: str, theirs: Any) -> bool:
    """A number in a path is an element's place; in MongoDB's projections it is a field's name."""
    return any(name.isdecimal() for name in path.split("."))


def nested_lists(document: Document, path: str, theirs: Any) -> bool:
    """Lists in lists are left out, or as they are; MongoDB projects the objects in them, too."""
    return any(isinstance(item, list) for values, _ in lists_on(document, path.split(".")) for item in values)


def broken_projection(document: Document, path: str, theirs: Any) -> bool:
    """A path that meets null in a list ends in a TypeError."""
    return broken([document], "$project", {path: 0}, theirs)


PROJECTIONS = (broken_projection, number_in_projection, nested_lists)
