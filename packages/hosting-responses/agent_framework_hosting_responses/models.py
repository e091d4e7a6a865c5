"""Models: the host's targets as callers choose them.

A host with one target serves it whatever `model` a request names, unless the operator is strict. With several, `model`
must name one of them. A request that continues something may leave it out: the target of the last response goes on.
"""

from __future__ import annotations

from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.targets.served import ServedTarget, ServedTargets

from .history import History
from .protocol import errors
from .protocol.json import JsonObject
from .protocol.request import CreateRequest
from .protocol.resources import model_list, model_object
from .settings import ResponsesSettings


class Models:
    """The models of one channel. `created` is what they say of their age, in Unix seconds."""

    def __init__(self, targets: ServedTargets, history: History, *, settings: ResponsesSettings, created: int) -> None:
        self._targets = targets
        self._history = history
        self._is_strict = settings.strict_model
        self._created = created

    async def choose(self, request: CreateRequest, partition: Partition) -> ServedTarget:
        """Return the target that is to run the request.

        Raises:
            RequestError: there is no such model, or the request names none and should.
        """
        only = self._targets.only
        if only is not None:
            if self._is_strict and request.model not in {None, only.name}:
                raise errors.model_not_found(str(request.model))
            return only
        if request.model is not None:
            named = self._targets.named(request.model)
            if named is None:
                raise errors.model_not_found(request.model)
            return named
        last = await self._history.last_response(request, partition)
        if last is None:
            raise errors.missing_parameter("model")
        served = self._targets.stored(last.target)
        if served is None:
            raise errors.model_gone(last.target)
        return served

    def name_of(self, served: ServedTarget, request: CreateRequest) -> str:
        """Return what the response calls its model: what the caller calls it, if that can only mean one."""
        return served.name if self._targets.only is None else request.model or served.name

    def all(self) -> JsonObject:
        """Return the list of models, as `GET /models` answers."""
        return model_list([self._object(served) for served in self._targets])

    def one(self, model_id: str) -> JsonObject:
        """Return one model, as `GET /models/{id}` answers.

        Raises:
            RequestError: 404, there is no such model.
        """
        served = self._targets.named(model_id)
        if served is None:
            raise errors.model_object_not_found(model_id)
        return self._object(served)

    def _object(self, served: ServedTarget) -> JsonObject:
        return model_object(served.name, created=self._created)
