"""Query parameters and pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.protocol.query import (
    ListQuery,
    RetrieveQuery,
    page,
    parse_list_query,
    parse_retrieve_query,
)

ITEMS: list[JsonObject] = [{"id": f"msg_{index}"} for index in range(130)]


@pytest.mark.parametrize(
    ("pairs", "query"),
    [
        ([], RetrieveQuery()),
        ([("stream", "false")], RetrieveQuery()),
        ([("stream", "true"), ("starting_after", "0")], RetrieveQuery(stream=True, starting_after=0)),
        ([("stream", "True")], RetrieveQuery(stream=True)),
        ([("starting_after", "7")], RetrieveQuery(starting_after=7)),
        ([("include[]", "a"), ("include[]", "b")], RetrieveQuery(include=frozenset({"a", "b"}))),
        ([("include", "a")], RetrieveQuery(include=frozenset({"a"}))),
        ([("include_obfuscation", "false")], RetrieveQuery(include_obfuscation=False)),
        ([("stream", ""), ("other", "x")], RetrieveQuery()),
    ],
)
def test_a_retrieve_query_is_read(pairs: list[tuple[str, str]], query: RetrieveQuery) -> None:
    assert parse_retrieve_query(pairs) == query


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("pairs", "param", "code"),
    [
        ([("stream", "yes")], "stream", "invalid_type"),
        ([("include_obfuscation", "maybe")], "include_obfuscation", "invalid_type"),
        ([("starting_after", "one")], "starting_after", "invalid_type"),
        ([("starting_after", "1.5")], "starting_after", "invalid_type"),
        ([("starting_after", "1\n")], "starting_after", "invalid_type"),
        ([("starting_after", "٣")], "starting_after", "invalid_type"),
        ([("starting_after", "9" * 5000)], "starting_after", "invalid_type"),
        ([("starting_after", "-1")], "starting_after", "integer_below_min_value"),
    ],
)
def test_a_malformed_retrieve_query_is_refused(pairs: list[tuple[str, str]], param: str, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_retrieve_query(pairs)

    assert (refused.value.param, refused.value.code, refused.value.status) == (param, code, 400)


@pytest.mark.parametrize(
    ("pairs", "query"),
    [
        ([], ListQuery()),
        ([("limit", "1"), ("order", "asc")], ListQuery(limit=1, order="asc")),
        ([("after", "msg_1"), ("before", "msg_2")], ListQuery(after="msg_1", before="msg_2")),
        ([("include[]", "a")], ListQuery(include=frozenset({"a"}))),
        ([("after", "")], ListQuery()),
    ],
)
def test_a_list_query_is_read(pairs: list[tuple[str, str]], query: ListQuery) -> None:
    assert parse_list_query(pairs) == query


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("pairs", "param", "code", "message"),
    [
        (
            [("limit", "1000")],
            "limit",
            "integer_above_max_value",
            "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 1000 instead.",
        ),
        (
            [("limit", "0")],
            "limit",
            "integer_below_min_value",
            "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
        (
            [("limit", "ten")],
            "limit",
            "invalid_type",
            "Invalid type for 'limit': expected an integer, but got a string instead.",
        ),
        (
            [("order", "random")],
            "order",
            "invalid_value",
            "Invalid value: 'random'. Supported values are: 'asc' and 'desc'.",
        ),
    ],
)
def test_a_malformed_list_query_is_refused(pairs: list[tuple[str, str]], param: str, code: str, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_list_query(pairs)

    assert (refused.value.param, refused.value.code, refused.value.message) == (param, code, message)


def ids(query: ListQuery) -> list[object]:
    data = page(ITEMS, query)["data"]
    assert isinstance(data, list)
    return [entry["id"] for entry in data if isinstance(entry, dict)]


def test_the_first_page_is_the_newest_twenty() -> None:
    assert ids(ListQuery()) == [f"msg_{index}" for index in range(129, 109, -1)]
    assert page(ITEMS, ListQuery())["has_more"] is True


@pytest.mark.behaviour("D2")
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 20, 65, 100])
def test_pages_followed_to_the_end_hold_each_item_once(order: str, limit: int) -> None:
    collected: list[object] = []
    query = ListQuery(order="asc" if order == "asc" else "desc", limit=limit)

    while True:
        collected += ids(query)
        current = page(ITEMS, query)
        if not current["has_more"]:
            break
        query = ListQuery(order=query.order, limit=limit, after=str(current["last_id"]))

    expected: list[object] = [item["id"] for item in ITEMS]
    assert collected == (expected if order == "asc" else expected[::-1])


def test_before_ends_the_page_in_list_order() -> None:
    query = ListQuery(order="asc", after="msg_1", before="msg_5", limit=2)

    assert ids(query) == ["msg_2", "msg_3"]
    assert page(ITEMS, query)["has_more"] is True
    assert ids(ListQuery(order="desc", after="msg_5", before="msg_1")) == ["msg_4", "msg_3", "msg_2"]


@pytest.mark.parametrize("query", [ListQuery(after="msg_x"), ListQuery(before="msg_x")])
def test_a_cursor_that_names_no_item_is_not_found(query: ListQuery) -> None:
    with pytest.raises(RequestError) as refused:
        page(ITEMS, query)

    assert refused.value.status == 404
    assert refused.value.message == "Item with id 'msg_x' not found."


def test_the_page_of_nothing_is_empty() -> None:
    assert page([], ListQuery()) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


names = st.sampled_from(["stream", "starting_after", "include", "limit", "order", "after", "include_obfuscation"])


def refusal(pairs: list[tuple[str, str]]) -> RequestError | None:
    try:
        parse_retrieve_query(pairs)
        parse_list_query(pairs)
    except RequestError as error:
        return error
    return None


@given(st.lists(st.tuples(names, st.text())))
def test_any_query_is_read_or_refused_with_400(pairs: list[tuple[str, str]]) -> None:
    error = refusal(pairs)

    assert error is None or (error.status == 400 and error.param is not None)
