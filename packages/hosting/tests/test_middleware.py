import asyncio
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_framework_hosting import (
    ISOLATION_HEADER_CHAT,
    ISOLATION_HEADER_USER,
    IsolationKeys,
    get_current_isolation_keys,
)
from agent_framework_hosting.middleware import (
    MAX_ISOLATION_KEY,
    IsolationMiddleware,
    PartitionMiddleware,
    PartitionResolver,
    RequestIdMiddleware,
)

REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


def client_of(app: ASGIApp) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://host")


async def say_keys(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(repr(get_current_isolation_keys()))(scope, receive, send)


def isolated(app: ASGIApp) -> ASGIApp:
    """Put the middleware where the host has it: inside of what answers exceptions."""
    starlette = Starlette()
    starlette.router.middleware_stack = IsolationMiddleware(app)
    return starlette


def resolved(app: ASGIApp, resolve_partition: PartitionResolver, **options: Any) -> ASGIApp:
    starlette = Starlette()
    starlette.router.middleware_stack = PartitionMiddleware(app, resolve_partition, **options)
    return starlette


# --- request ids


async def test_every_answer_has_an_id_of_its_own_and_the_scope_knows_it() -> None:
    async def say_id(request: Request) -> Response:
        return PlainTextResponse(request.state.request_id)

    async with client_of(RequestIdMiddleware(Starlette(routes=[Route("/", say_id)]))) as client:
        answers = [await client.get("/") for _ in range(2)]
        missing = await client.get("/nowhere")

    ids = [answer.headers["x-request-id"] for answer in answers]
    assert ids == [answer.text for answer in answers]
    assert len(set(ids)) == 2
    assert missing.status_code == 404
    assert all(REQUEST_ID.fullmatch(value) for value in [*ids, missing.headers["x-request-id"]])


async def test_the_answer_to_an_unexpected_error_has_an_id() -> None:
    async def broken(request: Request) -> Response:
        raise ValueError("SECRET")

    async with client_of(RequestIdMiddleware(Starlette(routes=[Route("/", broken)]))) as client:
        answer = await client.get("/")

    assert answer.status_code == 500
    assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])


async def test_an_id_of_the_caller_is_not_taken_over() -> None:
    async with client_of(RequestIdMiddleware(PlainTextResponse("ok"))) as client:
        answer = await client.get("/", headers={"x-request-id": "req_mine"})

    assert answer.headers.get_list("x-request-id") != ["req_mine"]


async def test_a_response_object_that_is_sent_twice_does_not_collect_ids() -> None:
    response = PlainTextResponse("ok")

    async with client_of(RequestIdMiddleware(response)) as client:
        await client.get("/")
        answer = await client.get("/")

    assert len(answer.headers.get_list("x-request-id")) == 1


async def test_the_chunks_of_a_stream_are_handed_on_as_they_are() -> None:
    chunk: Message = {"type": "http.response.body", "body": b"chunk", "more_body": True}
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send(chunk)

    async def receive() -> Message:
        raise AssertionError("nothing to receive")

    async def send(message: Message) -> None:
        sent.append(message)

    await RequestIdMiddleware(app)({"type": "http", "headers": []}, receive, send)

    assert [name for name, _ in sent[0]["headers"]] == [b"x-request-id"]
    assert sent[1] is chunk


# --- isolation


@pytest.mark.behaviour("E5")
async def test_the_headers_are_the_keys_of_the_request() -> None:
    async with client_of(isolated(say_keys)) as client:
        both = await client.get("/", headers={ISOLATION_HEADER_USER: "ada", ISOLATION_HEADER_CHAT: "c1"})
        user = await client.get("/", headers={ISOLATION_HEADER_USER: "ada"})

    assert both.text == repr(IsolationKeys("ada", "c1"))
    assert user.text == repr(IsolationKeys("ada"))
    assert get_current_isolation_keys() is None


@pytest.mark.parametrize("headers", [{}, {ISOLATION_HEADER_USER: ""}])
async def test_a_missing_or_empty_header_is_no_key(headers: dict[str, str]) -> None:
    async with client_of(isolated(say_keys)) as client:
        answer = await client.get("/", headers=headers)

    assert answer.text == repr(IsolationKeys())


@pytest.mark.behaviour("E5")
async def test_keys_of_concurrent_requests_do_not_mix() -> None:
    everybody_is_here = asyncio.Barrier(20)

    async def meet(scope: Scope, receive: Receive, send: Send) -> None:
        await everybody_is_here.wait()
        keys = get_current_isolation_keys()
        assert keys is not None
        await PlainTextResponse(keys.user_key)(scope, receive, send)

    async with client_of(isolated(meet)) as client, asyncio.timeout(60):
        names = [f"user {number}" for number in range(20)]
        answers = await asyncio.gather(*(client.get("/", headers={ISOLATION_HEADER_USER: name}) for name in names))

    assert [answer.text for answer in answers] == names


@pytest.mark.behaviour("E5")
async def test_the_keys_hold_while_an_answer_streams() -> None:
    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            for _ in range(2):
                keys = get_current_isolation_keys()
                assert keys is not None
                yield f"{keys.user_key};"

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", stream)])
    async with client_of(isolated(app)) as client:
        answer = await client.get("/", headers={ISOLATION_HEADER_USER: "ada"})

    assert answer.text == "ada;ada;"


@pytest.mark.behaviour("E3")
@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([(ISOLATION_HEADER_USER, b"x" * (MAX_ISOLATION_KEY + 1))], "longer than 512 bytes"),
        ([(ISOLATION_HEADER_CHAT, b"\xff\xfe")], "not valid UTF-8"),
        ([(ISOLATION_HEADER_USER, b"mallory"), (ISOLATION_HEADER_USER, b"ada")], "must not be repeated"),
    ],
)
async def test_a_header_that_cannot_be_right_is_refused(headers: list[tuple[str, bytes]], text: str) -> None:
    async with client_of(isolated(say_keys)) as client:
        answer = await client.get("/", headers=[(name.encode(), value) for name, value in headers])

    assert answer.status_code == 400
    assert text in answer.text


async def test_a_key_of_the_greatest_length_and_any_script_is_taken() -> None:
    key = "ä" * (MAX_ISOLATION_KEY // 2)

    async with client_of(isolated(say_keys)) as client:
        answer = await client.get("/", headers=[(ISOLATION_HEADER_USER.encode(), key.encode())])

    assert answer.text == repr(IsolationKeys(key))


async def test_the_lifespan_passes_without_keys_and_ids() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])
        assert get_current_isolation_keys() is None
        assert "state" not in scope

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None: ...

    await RequestIdMiddleware(IsolationMiddleware(app))({"type": "lifespan"}, receive, send)

    assert seen == ["lifespan"]


# --- a function of the operator's own


def by_token(request: Request) -> str:
    users = {"Bearer a": "ada", "Bearer b": "bob"}
    if (user := users.get(request.headers.get("authorization", ""))) is None:
        raise HTTPException(401, "Say who you are.", headers={"www-authenticate": "Bearer"})
    return user


@pytest.mark.behaviour("E1")
async def test_what_the_function_returns_are_the_keys_of_the_request() -> None:
    async with client_of(resolved(say_keys, by_token)) as client:
        answers = [await client.get("/", headers={"authorization": f"Bearer {token}"}) for token in ("a", "b")]

    assert [answer.text for answer in answers] == [repr(IsolationKeys("ada")), repr(IsolationKeys("bob"))]
    assert get_current_isolation_keys() is None


async def test_the_function_may_be_async_and_return_keys() -> None:
    async def by_database(request: Request) -> IsolationKeys:
        await asyncio.sleep(0)
        return IsolationKeys(chat_key=request.query_params["chat"])

    async with client_of(resolved(say_keys, by_database)) as client:
        answer = await client.get("/?chat=c1")

    assert answer.text == repr(IsolationKeys(chat_key="c1"))


@pytest.mark.behaviour("E3")
async def test_headers_play_no_part_beside_a_function() -> None:
    async with client_of(resolved(say_keys, by_token)) as client:
        answer = await client.get("/", headers={"authorization": "Bearer a", ISOLATION_HEADER_USER: "bob"})

    assert answer.text == repr(IsolationKeys("ada"))


@pytest.mark.behaviour("E3")
async def test_the_function_may_refuse_a_request() -> None:
    async with client_of(resolved(say_keys, by_token)) as client:
        answer = await client.get("/")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.text == "Say who you are."


@pytest.mark.behaviour("E3")
@pytest.mark.parametrize(
    "returned",
    [
        None,
        "",
        7,
        b"ada",
        IsolationKeys(),
        IsolationKeys(""),
        IsolationKeys("ada", ""),
        IsolationKeys(7),  # type: ignore[arg-type]
        SimpleNamespace(user_key="ada", chat_key=None),
    ],
)
async def test_a_function_that_names_nobody_serves_nobody(returned: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(resolved(say_keys, lambda _: returned)) as client:
        answer = await client.get("/")

    assert answer.status_code == 500
    assert "IsolationKeys" not in answer.text
    [record] = caplog.records
    assert "resolve_partition must return" in record.getMessage()
    assert record.__dict__["returned"] == type(returned).__name__


async def test_what_else_the_function_raises_is_an_error_of_the_server() -> None:
    def broken(request: Request) -> str:
        raise ValueError("SECRET")

    async with client_of(resolved(say_keys, broken)) as client:
        answer = await client.get("/")

    assert answer.status_code == 500
    assert "SECRET" not in answer.text


async def test_the_body_stays_the_channels() -> None:
    async def by_body(request: Request) -> str:
        return (await request.body()).decode()

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)

    async with client_of(resolved(echo, by_body)) as client:
        refused = await client.post("/", content="ada")
    async with client_of(resolved(echo, lambda _: "ada")) as client:
        answer = await client.post("/", content="hello")

    assert refused.status_code == 500
    assert answer.text == "hello"


@pytest.mark.parametrize("mounted_at", ["", "/ai"])
async def test_exempt_routes_are_served_without_asking(mounted_at: str) -> None:
    exempt = [Route("/readiness", PlainTextResponse("ready"))]
    app = resolved(say_keys, by_token, exempt=exempt)
    transport = httpx2.ASGITransport(app=app, root_path=mounted_at)

    async with httpx2.AsyncClient(transport=transport, base_url="http://host") as client:
        probe = await client.get(f"{mounted_at}/readiness")
        others = [
            await client.get(f"{mounted_at}{path}") for path in ("/", "/readiness/x", "/x/readiness", "//readiness")
        ]

    assert probe.text == "None"
    assert {other.status_code for other in others} == {401}


async def test_the_handshake_of_a_websocket_is_asked_about_like_a_get() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], get_current_isolation_keys()))

    def by_header(request: Request) -> str:
        return f"{request.method} {request.headers['x-user']}"

    async def nothing(*_: Any) -> Any: ...

    scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": [(b"x-user", b"ada")]}
    await PartitionMiddleware(app, by_header, exempt=[Route("/", PlainTextResponse("probe"))])(scope, nothing, nothing)

    assert seen == [("websocket", IsolationKeys("GET ada"))]


async def test_the_lifespan_passes_without_asking() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any: ...

    await PartitionMiddleware(app, by_token)({"type": "lifespan"}, nothing, nothing)

    assert seen == ["lifespan"]
