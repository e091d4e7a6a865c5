"""Objects as text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from agent_framework import Message
from pydantic import BaseModel

from agent_framework_hosting.targets.texts import as_text


@dataclass
class Order:
    """Something with fields."""

    number: int
    due: date


class Address(BaseModel):
    """A model."""

    street: str


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Order(3, date(2026, 1, 2)), '{"number": 3, "due": "2026-01-02"}'),
        (Address(street="Hügel"), '{"street": "Hügel"}'),
        ([Order(1, date(2026, 1, 2)), {"a": {2}}], '[{"number": 1, "due": "2026-01-02"}, {"a": [2]}]'),
        ([{"said": Message("user", ["hi"])}], '[{"said": "hi"}]'),
        ([Order(1, date(2026, 1, 2)), float("nan")], '[{"number":1,"due":"2026-01-02"},null]'),
        ({("a", 1): [Message("user", ["hi"]), float("inf")]}, '{"a,1":["hi",null]}'),
        (date(2026, 1, 2), "2026-01-02"),
        (7, "7"),
    ],
)
def test_what_has_fields_or_items_is_json_and_everything_else_its_own_text(value: Any, text: str) -> None:
    assert as_text(value) == text
