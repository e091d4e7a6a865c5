"""What a workflow asks people: how a request is shown, and how its answer becomes what the workflow waits for.

A request is a function call. Its name is that of the request's own type, or for a plain value the executor that asks; its
arguments are `{"request": what is asked, "response_schema": JSON schema of the answer}`. Requests that are calls or approvals
of an agent stay what they are. The answer is text, decoded into the type that the workflow waits for (see `answer_types`).
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from agent_framework import Content, WorkflowEvent

from ..errors import WrongAnswer
from .answer_types import AnswerType
from .base import Approval
from .texts import as_json

logger = logging.getLogger(__name__)

_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_LONGEST_NAME: Final = 64


class WorkflowQuestion:
    """One pending request of a workflow."""

    def __init__(self, event: WorkflowEvent[Any]) -> None:
        self.request_id = event.request_id
        self._request: object = event.data
        self._asker = event.source_executor_id
        self._type = AnswerType(event.response_type)

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
            if not self._type.is_decodable:
                logger.warning("A workflow asks for what no text can be decoded into", extra={"executor": self._asker})
            arguments = as_json({"request": asked, "response_schema": self._type.schema})
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
        return self._type.decode(given)


def _approval(asked: Content, given: str | Approval) -> Content:
    if isinstance(given, str):
        raise WrongAnswer("The answer must be an approval.")
    response = asked.to_function_approval_response(given.is_approved)
    if given.reason is not None:
        response.additional_properties = {**response.additional_properties, "reason": given.reason}
    return response


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME] or "request_info"
