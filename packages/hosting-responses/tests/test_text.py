"""The `text` and `reasoning` settings."""

from typing import Any

import pytest

from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.text import parse_reasoning, parse_text

SCHEMA: dict[str, Any] = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("text", "format_", "verbosity"),
    [
        ({}, {"type": "text"}, "medium"),
        ({"format": None, "verbosity": None}, {"type": "text"}, "medium"),
        ({"verbosity": "high"}, {"type": "text"}, "high"),
        ({"format": {"type": "json_object"}}, {"type": "json_object"}, "medium"),
        ({"format": SCHEMA}, {**SCHEMA, "description": None, "strict": None}, "medium"),
        (
            {"format": {**SCHEMA, "strict": True, "description": "d"}},
            {**SCHEMA, "description": "d", "strict": True},
            "medium",
        ),
    ],
)
def test_text_is_echoed_with_its_defaults(text: dict[str, Any], format_: dict[str, Any], verbosity: str) -> None:
    assert parse_text(text) == {"format": format_, "verbosity": verbosity}


def test_verbosity_from_outside_yields_to_that_of_text() -> None:
    assert parse_text({}, verbosity="low")["verbosity"] == "low"
    assert parse_text({"verbosity": "high"}, verbosity="low")["verbosity"] == "high"


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("text", "param", "code"),
    [
        ({"format": "json"}, "text.format", "invalid_type"),
        ({"format": {}}, "text.format.type", "missing_required_parameter"),
        ({"format": {"type": "xml"}}, "text.format.type", "invalid_value"),
        ({"format": {"type": "json_schema", "schema": {}}}, "text.format.name", "missing_required_parameter"),
        ({"format": {"type": "json_schema", "name": "n"}}, "text.format.schema", "missing_required_parameter"),
        ({"format": {**SCHEMA, "name": "two words"}}, "text.format.name", "invalid_value"),
        ({"format": {**SCHEMA, "name": "x" * 65}}, "text.format.name", "invalid_value"),
        ({"format": {**SCHEMA, "schema": []}}, "text.format.schema", "invalid_type"),
        ({"format": {**SCHEMA, "strict": "yes"}}, "text.format.strict", "invalid_type"),
        ({"format": {**SCHEMA, "description": 1}}, "text.format.description", "invalid_type"),
        ({"verbosity": "loud"}, "text.verbosity", "invalid_value"),
    ],
)
def test_a_malformed_text_setting_is_refused_with_its_path(text: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_text(text)

    assert (refused.value.param, refused.value.code) == (param, code)


def test_reasoning_always_has_effort_and_summary() -> None:
    assert parse_reasoning({}) == {"effort": None, "summary": None}
    assert parse_reasoning({"effort": "max", "context": None}) == {"effort": "max", "summary": None}
    assert parse_reasoning({"mode": "pro", "context": "auto", "generate_summary": "auto", "new": 1}) == {
        "effort": None,
        "summary": None,
        "generate_summary": "auto",
        "context": "auto",
        "mode": "pro",
    }


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("reasoning", "param", "code"),
    [
        ({"effort": "huge"}, "reasoning.effort", "invalid_value"),
        ({"effort": 1}, "reasoning.effort", "invalid_type"),
        ({"summary": "long"}, "reasoning.summary", "invalid_value"),
        ({"mode": "fast"}, "reasoning.mode", "invalid_value"),
        ({"context": []}, "reasoning.context", "invalid_type"),
    ],
)
def test_a_malformed_reasoning_setting_is_refused_with_its_path(
    reasoning: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(RequestError) as refused:
        parse_reasoning(reasoning)

    assert (refused.value.param, refused.value.code) == (param, code)
