"""The types that workflows wait for: what their JSON looks like, and what becomes of the text that a person has sent.

- Where text is waited for, it is taken as it is.
- Elsewhere it is JSON of the type, or, if it is no JSON, a value as people write it (`yes`, `blue`).
- A `Message` or `Content` is its text, also inside of dataclasses, lists and unions: `{"messages": ["shorter, please"]}`.
- A list of messages, and a dataclass that needs nothing else, takes other text as one message.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Final, NoReturn, Union, get_args, get_origin, get_type_hints

from agent_framework import Content, Message
from pydantic import AfterValidator, PydanticUserError, TypeAdapter, ValidationError

from ..errors import WrongAnswer


class AnswerType:
    """What one request waits for. `kind` is a class, or any other form of type."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    @cached_property
    def is_decodable(self) -> bool:
        """Whether there is text that can be decoded into it."""
        return self._kind is str or self._adapter is not None

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the answer; empty if there is none."""
        if self._adapter is None:
            return {}
        try:
            return self._adapter.json_schema()
        except PydanticUserError:  # what is validated, but has no words in JSON schema
            return {}

    def decode(self, text: str) -> object:
        """Return the answer that `text` is.

        Raises:
            WrongAnswer: it is none, or no text can be one.
        """
        if self._kind in _TEXTS:
            return _TEXTS[self._kind](text)
        if self._adapter is None:
            raise WrongAnswer("What the workflow waits for cannot be sent as text.")
        try:
            value = self._decoded(self._adapter, text)
        except ValidationError as error:
            raise self._wrong() from error
        # JSON has no such numbers. Of text, a number is the only thing that they are made of.
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong()
        return value

    @cached_property
    def _adapter(self) -> TypeAdapter[Any] | None:
        try:
            return TypeAdapter(_in_text(self._kind))
        except (PydanticUserError, TypeError, NameError):
            return None

    def _decoded(self, adapter: TypeAdapter[Any], text: str) -> object:
        said = _as_message(self._kind, text)
        parsed = _parsed(text)
        if parsed is not _NO_JSON:
            try:
                return adapter.validate_json(text)
            except ValidationError:
                if said is None or (isinstance(said, dict) and isinstance(parsed, dict)):
                    raise
        return adapter.validate_python(text if said is None else said)

    def _wrong(self) -> WrongAnswer:
        schema = json.dumps(self.schema, ensure_ascii=False, default=str)
        return WrongAnswer(f"The answer must be JSON of this schema: {schema}")


def _said(text: str) -> Message:
    return Message("user", [text])


_TEXTS: Final[dict[Any, Callable[[str], object]]] = {str: str, Message: _said, Content: Content.from_text}
_NO_JSON: Final = object()


def _parsed(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):  # brackets deeper than anybody nests are no structure either
        return _NO_JSON


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def _in_text(kind: Any, within: tuple[Any, ...] = ()) -> Any:
    """Return `kind` with text in the place of messages, from which they are made; the same object if it has none."""
    if kind is Message or kind is Content:
        return Annotated[str, AfterValidator(_TEXTS[kind])]
    if _has_fields(kind) and kind not in within:
        return _with_fields_in_text(kind, (*within, kind))
    given = get_args(kind)
    taught = tuple(_in_text(argument, within) for argument in given)
    if taught == given:
        return kind
    origin: Any = get_origin(kind)
    return Union[taught] if origin in _UNIONS else origin[taught]  # noqa: UP007  built at run time


_UNIONS: Final = (Union, type(int | str))


def _with_fields_in_text(kind: Any, within: tuple[Any, ...]) -> Any:
    types = get_type_hints(kind, include_extras=True)
    taught = {field.name: _in_text(types[field.name], within) for field in _given_fields(kind)}
    if all(taught[name] is types[name] for name in taught):
        return kind
    fields = [
        (
            field.name,
            taught[field.name],
            dataclasses.field(default=field.default, default_factory=field.default_factory),
        )
        for field in _given_fields(kind)
    ]
    twin = dataclasses.make_dataclass(kind.__name__, fields, kw_only=True)
    return Annotated[twin, AfterValidator(lambda made: kind(**{name: getattr(made, name) for name in taught}))]


def _as_message(kind: Any, text: str) -> object:
    """Return what stands for the message `text` where messages are all that is waited for, else `None`."""
    if kind is Message:
        return text
    if kind == list[Message]:
        return [text]
    if _has_fields(kind):
        needed = [field for field in _given_fields(kind) if _is_needed(field)]
        if len(needed) == 1:
            said = _as_message(get_type_hints(kind)[needed[0].name], text)
            return None if said is None else {needed[0].name: said}
    return None


def _has_fields(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _given_fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
