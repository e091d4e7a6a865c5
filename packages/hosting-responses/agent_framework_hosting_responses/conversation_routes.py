"""The routes of the Conversations API (contract §6.1), and nothing that knows what they mean."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .conversations import ConversationsService
from .http import Answered, json_response, read_body
from .protocol.conversations import decode_creation
from .protocol.json import JsonObject
from .protocol.query import parse_list_query
from .protocol.request import decode_body


def conversation_routes(prefix: str, service: ConversationsService) -> list[BaseRoute]:
    """Return the routes of the API, with absolute paths that begin with `prefix` + `/conversations`."""
    endpoints = _Endpoints(service)
    path = f"{prefix}/conversations"
    one = path + "/{conversation_id}"
    items = f"{one}/items"
    item = items + "/{item_id}"
    return [
        Route(path, Answered(endpoints.create), methods=["POST"]),
        Route(one, Answered(endpoints.retrieve), methods=["GET"]),
        Route(one, Answered(endpoints.update), methods=["POST"]),
        Route(one, Answered(endpoints.delete), methods=["DELETE"]),
        Route(items, Answered(endpoints.create_items), methods=["POST"]),
        Route(items, Answered(endpoints.items), methods=["GET"]),
        Route(item, Answered(endpoints.item), methods=["GET"]),
        Route(item, Answered(endpoints.delete_item), methods=["DELETE"]),
    ]


class _Endpoints:
    def __init__(self, service: ConversationsService) -> None:
        self._service = service

    async def create(self, request: Request) -> Response:
        body = decode_creation(await read_body(request, limit=self._service.settings.max_body_bytes))
        return json_response(await self._service.create(body))

    async def retrieve(self, request: Request) -> Response:
        return json_response(await self._service.retrieve(_conversation_id(request)))

    async def update(self, request: Request) -> Response:
        body = await self._body(request)
        return json_response(await self._service.update(_conversation_id(request), body))

    async def delete(self, request: Request) -> Response:
        return json_response(await self._service.delete(_conversation_id(request)))

    async def create_items(self, request: Request) -> Response:
        body = await self._body(request)
        return json_response(await self._service.create_items(_conversation_id(request), body))

    async def items(self, request: Request) -> Response:
        query = parse_list_query(request.query_params.multi_items())
        return json_response(await self._service.items(_conversation_id(request), query))

    async def item(self, request: Request) -> Response:
        return json_response(await self._service.item(_conversation_id(request), request.path_params["item_id"]))

    async def delete_item(self, request: Request) -> Response:
        item_id = request.path_params["item_id"]
        return json_response(await self._service.delete_item(_conversation_id(request), item_id))

    async def _body(self, request: Request) -> JsonObject:
        return decode_body(await read_body(request, limit=self._service.settings.max_body_bytes))


def _conversation_id(request: Request) -> str:
    return str(request.path_params["conversation_id"])
