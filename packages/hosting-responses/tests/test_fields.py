"""Readers of typed fields."""

from collections.abc import Callable
from functools import partial

import pytest

from agent_framework_hosting_responses.protocol import fields
from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.json import JsonValue

count = partial(fields.integer, minimum=1, maximum=3)
share = partial(fields.decimal, minimum=0, maximum=1)


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("read", "value", "code"),
    [
        (fields.string, 1, "invalid_type"),
        (fields.string, None, "invalid_type"),
        (partial(fields.string, maximum=2), "abc", "string_above_max_length"),
        (fields.boolean, "false", "invalid_type"),
        (fields.boolean, 0, "invalid_type"),
        (count, True, "invalid_type"),
        (count, 1.0, "invalid_type"),
        (count, "1", "invalid_type"),
        (count, 0, "integer_below_min_value"),
        (count, 4, "integer_above_max_value"),
        (share, True, "invalid_type"),
        (share, "0.5", "invalid_type"),
        (share, -0.1, "decimal_below_min_value"),
        (share, 10**400, "decimal_above_max_value"),
        (partial(fields.choice, options=("a", "b")), "c", "invalid_value"),
        (partial(fields.choice, options=("a", "b")), ["a"], "invalid_type"),
        (fields.mapping, [], "invalid_type"),
        (partial(fields.array, maximum=1), {}, "invalid_type"),
        (partial(fields.array, maximum=1), [1, 2], "array_above_max_length"),
        (fields.identifier, 7, "invalid_type"),
        (fields.identifier, "", "invalid_value"),
        (fields.identifier, "../../x", "invalid_value"),
        (fields.identifier, "resp_1\n", "invalid_value"),
        (fields.identifier, "é", "invalid_value"),
        (fields.identifier, "x" * 257, "invalid_value"),
        (fields.text_of(3), "", "invalid_value"),
        (fields.text_of(3), "abcd", "string_above_max_length"),
        (fields.one_of("a"), "b", "invalid_value"),
    ],
)
def test_a_reader_refuses_what_it_does_not_read_and_names_the_path(
    read: Callable[[JsonValue, str], JsonValue], value: JsonValue, code: str
) -> None:
    with pytest.raises(RequestError) as refused:
        read(value, "a.b[0]")

    assert (refused.value.code, refused.value.param, refused.value.status) == (code, "a.b[0]", 400)


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (fields.string, "", ""),
        (fields.boolean, False, False),
        (count, 3, 3),
        (share, 1, 1.0),
        (share, 0.5, 0.5),
        (fields.identifier, "x" * 256, "x" * 256),
        (fields.identifier, "resp_-1", "resp_-1"),
        (fields.list_of(fields.string), ["a"], ["a"]),
        (fields.anything, {"a": None}, {"a": None}),
    ],
)
def test_a_reader_returns_the_value_as_it_is_kept(
    read: Callable[[JsonValue, str], JsonValue], value: JsonValue, expected: JsonValue
) -> None:
    result = read(value, "p")

    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(("path", "param"), [("input[0]", "input[0].role"), ("", "role")])
def test_a_required_member_that_is_null_is_missing(path: str, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        fields.required({"role": None}, "role", path)

    assert (refused.value.code, refused.value.param) == ("missing_required_parameter", param)


def test_a_list_names_the_element_that_is_wrong() -> None:
    with pytest.raises(RequestError) as refused:
        fields.list_of(fields.string)(["a", 1], "p")

    assert refused.value.param == "p[1]"


def test_null_members_are_left_out() -> None:
    assert fields.without_nulls({"a": None, "b": False, "c": 0, "d": ""}) == {"b": False, "c": 0, "d": ""}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("msg_1", True),
        ("a/b é", True),
        ("x" * 256, True),
        ("x" * 257, False),
        ("\x00", False),
        ("a\nb", False),
        ("\ud800", False),
        ("\u2028", False),
    ],
)
def test_plain_text_is_short_and_can_be_printed(value: str, *, expected: bool) -> None:
    assert fields.is_plain(value) is expected
