"""YAML and JSON that somebody may have written: plain values, or one kind of error whatever is wrong with them."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaml import Node

LARGEST_YAML = 2**18
"""Characters; the settings of a study with a thousand rows are smaller."""

LONGEST_VALUE = 2000
"""Characters of one value in a YAML file; Python itself refuses to show whole numbers of twice as many digits."""

MOST_VALUES = 100_000
"""Values in a YAML file, those that it repeats by ``*name`` counted each time: a few lines can stand for billions."""


class DocumentError(ValueError):
    """A text that cannot be used. Its message goes on after the name of the file: ``is not valid YAML at line 3``."""


def parse_yaml(text: str) -> Any:
    """The plain values in a YAML text: mappings, lists, texts, numbers and dates.

    Raises:
        DocumentError: It is no YAML, asks for objects of other kinds, or is too large.
    """
    import yaml

    if len(text) > LARGEST_YAML:
        raise DocumentError(f"has {len(text):,} characters, more than {LARGEST_YAML:,}")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise DocumentError(f"holds more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except DocumentError:
        raise
    except Exception as error:  # a date such as 2001-99-99 or a tag on a wrong value makes PyYAML raise almost anything
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise DocumentError(f"is not valid YAML{where}") from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The mapping in a JSON text.

    Raises:
        DocumentError: It is no JSON, or holds something else.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError("is not JSON") from error
    if not isinstance(content, dict):
        raise DocumentError("holds no JSON object")
    return content


def _size(node: "Node", known: dict["Node", int]) -> int:
    """How many values a node stands for, repeated ones counted each time."""
    if isinstance(node.value, str):
        if len(node.value) > LONGEST_VALUE:
            raise DocumentError(f"holds a value of more than {LONGEST_VALUE:,} characters")
        return 1
    if node not in known:
        known[node] = 0
        parts = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
        known[node] = 1 + sum(_size(part, known) for part in parts)
    elif known[node] == 0:
        raise DocumentError("holds a value that contains itself")
    return known[node]
