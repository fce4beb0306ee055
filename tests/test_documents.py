"""YAML and JSON from anywhere: plain values as the libraries read them, or one kind of error."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hcoatnet.documents import LARGEST_YAML, DocumentError, parse_object, parse_yaml

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@given(trees)
def test_what_was_written_is_read_back(tree):
    assert parse_object(json.dumps({"tree": tree})) == {"tree": tree}
    text = yaml.safe_dump(tree, allow_unicode=True)
    assert parse_yaml(text) == yaml.safe_load(text)


@given(st.text(max_size=100))
def test_any_text_is_read_as_yaml_does_or_refused(text):
    try:
        expected = yaml.safe_load(text)
    except Exception:
        with pytest.raises(DocumentError):
            parse_yaml(text)
    else:
        assert repr(parse_yaml(text)) == repr(expected)  # NaN is unlike itself


@given(st.text(max_size=100) | trees.map(json.dumps))
def test_any_text_is_read_as_json_does_or_refused(text):
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert parse_object(text) == expected
    else:
        with pytest.raises(DocumentError):
            parse_object(text)


def test_values_may_be_repeated():
    text = "base: &base {lr: 0.1}\nmine: {<<: *base, seed: 1}\nlist: [*base, *base]"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "is not valid YAML at line 2"),
        ("a: 2001-99-99", "is not valid YAML"),
        ("a: !!python/name:os.mkdir", "is not valid YAML at line 1"),
        ("&a [*a]", "holds a value that contains itself"),
        ("a" * (LARGEST_YAML + 1), "has 262,145 characters, more than 262,144"),
        ("a: " + "b" * 2001, "holds a value of more than 2,000 characters"),
        ("a: &a [" + "1," * 1000 + "]\nb: [" + "*a," * 99 + "]", "holds more than 100,000 values"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"), [(b"\xff", "is not JSON"), ("", "is not JSON"), ("[1]", "holds no JSON object")]
)
def test_an_object_is_asked_for(text, message):
    with pytest.raises(DocumentError, match=message):
        parse_object(text)
    assert parse_object('{"a": [1]}') == {"a": [1]}
