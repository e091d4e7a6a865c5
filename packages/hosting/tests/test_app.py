import logging
import re
from collections.abc import Mapping, Sequence

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from agent_framework_hosting import ChannelContext, ChannelContribution, ConfigurationError, ExceptionHandler
from agent_framework_hosting.app import HostApp, ServedRoute
from agent_framework_hosting.isolation import ISOLATION_HEADER_USER
from agent_framework_hosting.lifecycle import Lifecycle
from agent_framework_hosting.runs.memory import MemoryRunEngine


class RouteChannel:
    """Has a name and a path; its contribution is given to the app directly."""

    def __init__(self, name: str = "chat", path: str = "/chat") -> None:
        self.name = name
        self.path = path

    def contribute(self, context: ChannelContext) -> ChannelContribution:
        return ChannelContribution()


async def show(request: Request) -> Response:
    return JSONResponse({"path": request.url.path, "method": request.method, **request.path_params})


def new_app(
    routes: Sequence[BaseRoute] = (),
    *,
    path: str = "/chat",
    root_routes: Sequence[BaseRoute] = (),
    handlers: Mapping[int | type[Exception], ExceptionHandler] | None = None,
    debug: bool = False,
    trust_isolation_headers: bool = False,
) -> HostApp:
    contribution = ChannelContribution(routes=routes, root_routes=root_routes, exception_handlers=handlers or {})
    return HostApp(
        [(RouteChannel(path=path), contribution)],
        Lifecycle(MemoryRunEngine()),
        announcement={"target": "agent"},
        debug=debug,
        trust_isolation_headers=trust_isolation_headers,
    )


def client_of(app: ASGIApp) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://host")


async def status_of(app: ASGIApp, path: str, method: str = "GET") -> int:
    async with client_of(app) as client:
        return (await client.request(method, path)).status_code


# --- mounting


async def test_the_exact_path_of_a_channel_answers_without_a_redirect() -> None:
    app = new_app([Route("/", show, methods=["POST"]), Route("/{item}", show)], path="/responses")

    async with client_of(app) as client:
        exact = await client.post("/responses")
        item = await client.get("/responses/resp_1")
        slash = await client.post("/responses/")

    assert exact.json() == {"path": "/responses", "method": "POST"}
    assert item.json() == {"path": "/responses/resp_1", "method": "GET", "item": "resp_1"}
    assert slash.status_code == 404


async def test_an_empty_path_is_the_root() -> None:
    app = new_app([Route("/", show), Route("/items", show)], path="")

    assert await status_of(app, "/") == 200
    assert await status_of(app, "/items") == 200


async def test_root_routes_do_not_move() -> None:
    app = new_app(root_routes=[Route("/v1/models", show)])

    assert await status_of(app, "/v1/models") == 200
    assert await status_of(app, "/chat/v1/models") == 404


@pytest.mark.parametrize("mount_path", ["", "/"])
async def test_a_mounted_app_answers_the_exact_path_of_its_channel_too(mount_path: str) -> None:
    app = new_app([Mount(mount_path, app=Router([Route("/", show), Route("/sub", show)]))])

    assert await status_of(app, "/chat") == 200
    assert await status_of(app, "/chat/") == 200
    assert await status_of(app, "/chat/sub") == 200
    assert await status_of(app, "/chatter") == 404


async def test_a_mount_below_the_channel_moves_with_it() -> None:
    app = new_app([Mount("/files", app=Router([Route("/{name}", show)]))])

    async with client_of(app) as client:
        answer = await client.get("/chat/files/a")

    assert answer.json()["name"] == "a"


async def test_routes_of_the_channel_stay_as_they_were() -> None:
    route = Route("/items", show)

    new_app([route])

    assert route.path == "/items"


async def test_a_method_that_no_route_has_is_refused_with_the_ones_there_are() -> None:
    app = new_app([Route("/", show, methods=["POST"])])

    async with client_of(app) as client:
        answer = await client.delete("/chat")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_the_app_says_what_it_serves() -> None:
    async def talk(socket: WebSocket) -> None: ...

    app = new_app([Route("/", show, methods=["POST"]), WebSocketRoute("/talk", talk), Mount("/files", app=Router())])

    assert app.served[2:] == (
        ServedRoute("chat", "/chat", frozenset({"POST"})),
        ServedRoute("chat", "/chat/talk", frozenset({"WEBSOCKET"})),
        ServedRoute("chat", "/chat/files", frozenset()),
    )


@pytest.mark.parametrize(
    "routes",
    [
        [Route("/", show), Route("/", show)],
        [Route("/{item}", show), Route("/{other}", show)],
        [Route("/a", show, methods=["GET", "POST"]), Route("/a", show, methods=["POST"])],
        [Mount("/files", app=Router()), Mount("/files", app=Router())],
    ],
)
def test_a_route_that_another_one_hides_is_refused(routes: list[BaseRoute]) -> None:
    with pytest.raises(ConfigurationError, match=r"Channel 'chat' answers .* which Channel 'chat' answers already"):
        new_app(routes)


def test_different_methods_may_share_a_path() -> None:
    app = new_app([Route("/", show, methods=["GET"]), Route("/", show, methods=["POST"])])

    assert len(app.served) == 4


def test_a_route_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'chat' contributes a Host: use Route, WebSocketRoute or Mount"):
        new_app([Host("example.org", app=Router())])


# --- probes


@pytest.mark.behaviour("G2")
async def test_readiness_is_red_before_the_start_green_after_it_and_red_after_the_stop() -> None:
    app = new_app()
    statuses = [await status_of(app, "/readiness")]

    async with app.lifespan():
        statuses.append(await status_of(app, "/readiness"))
        app.lifecycle.begin_stop()
        statuses.append(await status_of(app, "/readiness"))
    statuses.append(await status_of(app, "/readiness"))

    assert statuses == [503, 200, 503, 503]


async def test_liveness_is_green_as_long_as_the_process_answers() -> None:
    assert await status_of(new_app(), "/liveness") == 200


@pytest.mark.parametrize("path", ["/readiness", "/liveness"])
async def test_no_channel_sees_a_request_for_a_probe(path: str) -> None:
    app = new_app([Route("/{anything:path}", show, methods=["GET", "POST"]), Mount("/", app=Router())], path="")

    async with app.lifespan(), client_of(app) as client:
        read = await client.get(path)
        head = await client.head(path)
        write = await client.post(path)

    assert "status" in read.json()
    assert head.status_code == 200
    assert write.status_code == 405
    assert write.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/readiness", "/liveness"])
def test_a_route_with_the_path_of_a_probe_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match=f"answers {path}, which the host answers already"):
        new_app(root_routes=[Route(path, show, methods=["POST"])])


# --- errors


async def broken(request: Request) -> Response:
    raise ValueError("SECRET")


@pytest.mark.behaviour("A7")
async def test_an_unexpected_error_tells_the_caller_nothing() -> None:
    async with client_of(new_app([Route("/", broken)])) as client:
        answer = await client.get("/chat")

    assert answer.status_code == 500
    assert "SECRET" not in answer.text
    assert answer.headers["x-request-id"].startswith("req_")


async def test_debug_shows_the_error() -> None:
    async with client_of(new_app([Route("/", broken)], debug=True)) as client:
        answer = await client.get("/chat")

    assert answer.status_code == 500
    assert "SECRET" in answer.text


async def test_handlers_of_channels_answer_statuses_classes_and_unexpected_errors() -> None:
    def of_status(request: Request, error: Exception) -> Response:
        return PlainTextResponse("by status", 404)

    async def of_class(request: Request, error: Exception) -> Response:
        return PlainTextResponse("by class", 409)

    def of_everything(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", 500)

    async def busy(request: Request) -> Response:
        raise BlockingIOError

    app = new_app(
        [Route("/busy", busy), Route("/broken", broken)],
        handlers={404: of_status, BlockingIOError: of_class, Exception: of_everything},
    )
    async with client_of(app) as client:
        answers = [await client.get(path) for path in ("/nowhere", "/chat/busy", "/chat/broken")]

    assert [(answer.status_code, answer.text) for answer in answers] == [
        (404, "by status"),
        (409, "by class"),
        (500, "sorry"),
    ]


@pytest.mark.parametrize(("first", "second", "path"), [(404, 404, "/nowhere"), (500, Exception, "/a")])
async def test_the_first_channel_to_claim_an_error_keeps_it(
    first: int | type[Exception], second: int | type[Exception], path: str
) -> None:
    def answer(text: str) -> ExceptionHandler:
        return lambda request, error: PlainTextResponse(text, 500)

    contributions = [
        (
            RouteChannel("a", "/a"),
            ChannelContribution(routes=[Route("/", broken)], exception_handlers={first: answer("a")}),
        ),
        (RouteChannel("b", "/b"), ChannelContribution(exception_handlers={second: answer("b")})),
    ]
    async with client_of(HostApp(contributions, Lifecycle(MemoryRunEngine()), announcement={})) as client:
        assert (await client.get(path)).text == "a"


async def test_a_bad_isolation_header_gets_the_error_body_of_the_channel() -> None:
    def envelope(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code)

    app = new_app(handlers={HTTPException: envelope}, trust_isolation_headers=True)
    async with client_of(app) as client:
        answer = await client.get("/liveness", headers={ISOLATION_HEADER_USER: "x" * 1000})

    assert answer.status_code == 400
    assert re.search("longer than", answer.json()["error"])


# --- lifespan


async def test_the_start_is_logged_once_with_its_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with new_app().lifespan():
            pass

    record, stop = [record for record in caplog.records if record.name.startswith("agent_framework_hosting")]
    assert [record.getMessage(), stop.getMessage()] == ["The host has started", "The host is stopping"]
    assert record.__dict__["target"] == "agent"
    assert record.__dict__["bind"] is None


async def test_a_request_without_lifespan_is_served_and_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    app = new_app([Route("/", show)])

    assert await status_of(app, "/chat") == 200
    assert await status_of(app, "/chat") == 200

    [record] = caplog.records
    assert "host.lifespan" in record.getMessage()


async def test_no_warning_when_the_lifespan_runs(caplog: pytest.LogCaptureFixture) -> None:
    app = new_app([Route("/", show)])

    async with app.lifespan():
        await status_of(app, "/chat")

    assert not caplog.records
