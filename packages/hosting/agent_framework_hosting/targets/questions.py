"""What a workflow asks people: how a request is shown, and how its answer becomes what the workflow waits for.

A request is a function call. Its name is that of the request's own type, or for a plain value the executor that asks; its
arguments are `{"request": what is asked, "response_schema": JSON schema of the answer}`. Requests that are calls or approvals
of an agent stay what they are. The answer is text: JSON of the type that the workflow expects, or the text itself where
that is no JSON, or where the workflow expects text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from agent_framework import Content, Message, WorkflowEvent
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from ..errors import WrongAnswer
from .base import Approval
from .texts import structure_or_text

_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_LONGEST_NAME: Final = 64


class WorkflowQuestion:
    """One pending request of a workflow."""

    def __init__(self, event: WorkflowEvent[Any]) -> None:
        self.request_id = event.request_id
        self._request: object = event.data
        self._asker = event.source_executor_id
        self._type: Any = event.response_type

    @property
    def content(self) -> Content:
        """What the caller is shown, with the id of the request as `call_id`, or as `id` of an approval request."""
        asked = self._request
        if isinstance(asked, Content) and asked.type == "function_approval_request":
            return asked
        if isinstance(asked, Content) and asked.type == "function_call":
            name, arguments = asked.name or self._asker, asked.arguments or {}
        else:
            name = self._asker if type(asked).__module__ == "builtins" else type(asked).__name__
            arguments = json.dumps(
                {"request": asked, "response_schema": self._schema()}, default=structure_or_text, ensure_ascii=False
            )
        shown = Content.from_function_call(self.request_id, _name(name), arguments=arguments)
        # The run has ended when it is answered: nobody but the caller will.
        shown.user_input_request = True
        return shown

    def answer(self, given: str | Approval) -> object:
        """Return what the workflow gets for what the caller has `given`.

        Raises:
            WrongAnswer: it is not of the type that the workflow expects.
        """
        asked = self._request
        if isinstance(asked, Content) and asked.type == "function_approval_request":
            return _approval(asked, given)
        if not isinstance(given, str):
            raise WrongAnswer("The answer must be text.")
        if isinstance(asked, Content) and asked.type == "function_call":
            return Content.from_function_result(asked.call_id or self.request_id, result=given)
        return self._decoded(given)

    def _decoded(self, text: str) -> object:
        speaking = _SPEAKING.get(self._type)
        if speaking is not None:
            return speaking(text)
        adapter = _adapter(self._type)
        try:
            return adapter.validate_json(text) if _is_json(text) else adapter.validate_python(text)
        except ValidationError as error:
            schema = json.dumps(self._schema(), ensure_ascii=False)
            raise WrongAnswer(f"The answer must be JSON of this schema: {schema}") from error

    def _schema(self) -> object:
        if self._type in _SPEAKING:
            return {"type": "string"}
        try:
            return _adapter(self._type).json_schema()
        except (PydanticUserError, WrongAnswer):  # a type that JSON does not know
            return {}


def _approval(asked: Content, given: str | Approval) -> Content:
    if isinstance(given, str):
        raise WrongAnswer("The answer must be an approval.")
    response = asked.to_function_approval_response(given.is_approved)
    if given.reason is not None:
        response.additional_properties = {**response.additional_properties, "reason": given.reason}
    return response


def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(kind)
    except PydanticUserError as error:
        raise WrongAnswer("What the workflow waits for cannot be sent as text.") from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME] or "request_info"


# What is said in words, whatever the words look like.
_SPEAKING: Final[dict[Any, Callable[[str], object]]] = {
    str: str,
    Content: Content.from_text,
    Message: lambda text: Message("user", [text]),
    list[Message]: lambda text: [Message("user", [text])],
}
