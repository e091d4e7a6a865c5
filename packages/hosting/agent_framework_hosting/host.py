"""The host: composes targets, stores, engine and channels into one application."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain
from typing import Any

from .app import HostApp
from .channel import Channel, ChannelContribution
from .checkpoints import AllowedTypes, CheckpointLocation, Checkpoints
from .context import ChannelContext, current_partition
from .directories import PathName
from .errors import ConfigurationError
from .isolation import IsolationKeys
from .lifecycle import Lifecycle
from .middleware import PartitionResolver
from .runs.memory import MemoryRunEngine, MemoryRunLog
from .sessions import Sessions
from .state import RUN_CONCURRENCY, HostState, choose_state
from .stores.base import Retention, SessionStore
from .targets.base import Target, prepare
from .targets.choice import HostTarget, choose_target
from .targets.served import ServedTargets
from .types import HostStatePaths

logger = logging.getLogger(__name__)

TRUST_VARIABLE = "FOUNDRY_HOSTING_ENVIRONMENT"
"""Environment variable that says, by any non-empty value, that a trusted environment sets the isolation headers."""


class AgentFrameworkHost:
    """Puts agents and workflows on the network through channels.

    `target` is one of them, or a mapping: the names by which callers choose → what each of them is.

    `app` is the ASGI application; the host itself is one too. Mounted in another application, the parent must run
    `host.lifespan`: `FastAPI(lifespan=host.lifespan)`.

    State lives in memory, bounded, unless one of these says otherwise. `state_dir`: a directory (sessions, responses and
    conversations in a SQLite file, checkpoints of a workflow beside it), or the mapping `HostStatePaths`.
    `database_url`: a PostgreSQL database, upgraded by `afhost db upgrade`. With neither, the environment variable
    `AFHOST_DATABASE_URL` is asked. `checkpoint_location` is the directory of a workflow's checkpoints, or a
    `CheckpointStorage`, and wins over that of `state_dir`. `allowed_checkpoint_types` are those of your own that may be in
    checkpoints: classes, or their names `"module:qualname"`; of all others the framework reads its own and plain values. `session_store` keeps the agents' sessions in place of the host's own store. `retention` says how long
    sessions and checkpoints are kept, each by themselves; it is enforced in the background. Channels have settings of
    their own for what they keep.

    `resolve_partition` says for each request whose it is: it returns a user key or `IsolationKeys`, or raises Starlette's
    `HTTPException`; probes are not asked about. Without it, `trust_isolation_headers` says whether the sender of the
    isolation headers is trusted; `None` asks the environment (`FOUNDRY_HOSTING_ENVIRONMENT`).

    Processes that share a PostgreSQL database share its background runs: this one executes at most `run_concurrency` of
    them at once; with 0 it accepts and serves them, and leaves their execution to the others.

    `shutdown_grace`: seconds that runs get to finish when the host stops. `shutdown_notice`: seconds before that, in which
    `serve` goes on as before, with red readiness, for a load balancer to see it. `debug` shows tracebacks to callers.

    Raises:
        ConfigurationError: the target, the channels or the options do not fit, or need an extra that is not installed;
            the message says what to change.
    """

    def __init__(
        self,
        target: HostTarget | Mapping[str, HostTarget],
        *,
        channels: Sequence[Channel],
        debug: bool = False,
        checkpoint_location: CheckpointLocation | None = None,
        allowed_checkpoint_types: AllowedTypes = (),
        state_dir: PathName | HostStatePaths | None = None,
        database_url: str | None = None,
        session_store: SessionStore | None = None,
        retention: Retention | None = None,
        run_concurrency: int = RUN_CONCURRENCY,
        resolve_partition: PartitionResolver | None = None,
        trust_isolation_headers: bool | None = None,
        shutdown_grace: float = 30.0,
        shutdown_notice: float = 0.0,
    ) -> None:
        if run_concurrency < 0:
            raise ConfigurationError("run_concurrency must be 0 or more runs.")
        if min(shutdown_grace, shutdown_notice) < 0:
            raise ConfigurationError("shutdown_grace and shutdown_notice must be 0 or more seconds.")
        _check_trust(resolve_partition, trust_isolation_headers)
        self._state = choose_state(
            state_dir=state_dir,
            database_url=database_url,
            session_store=session_store,
            retention=retention,
            allowed_checkpoint_types=allowed_checkpoint_types,
            run_concurrency=run_concurrency,
        )
        self.targets = _serve(target, checkpoint_location, self._state)
        self.channels = _checked_channels(channels)
        self.debug = debug
        if trust_isolation_headers is None:
            trust_isolation_headers = bool(os.environ.get(TRUST_VARIABLE))
        self._trusts_headers = trust_isolation_headers
        self._resolve_partition = resolve_partition
        self._grace = shutdown_grace
        self._notice = shutdown_notice
        self._app: HostApp | None = None
        self._context = new_context(self.targets, self._state, debug=debug)

    @property
    def target(self) -> Target:
        """The target that was given alone.

        Raises:
            ConfigurationError: there are several: see `targets`.
        """
        if self.targets.only is None:
            raise ConfigurationError("The host has several targets: see host.targets.")
        return self.targets.only.target

    async def work(self, stopped: asyncio.Event, *, hurried: asyncio.Event | None = None) -> None:
        """Execute background runs, and serve nothing, until `stopped` is set; then let go of them in order.

        They get `shutdown_grace` seconds to finish, or until `hurried` is set.

        Raises:
            ConfigurationError: the host has no PostgreSQL database, so nobody could give it work.
        """
        if self._state.engine is None or not self._state.engine.works:
            raise ConfigurationError(
                "A worker executes runs that other processes accept: give the host a database_url (and a run_concurrency "
                "of 1 or more)."
            )
        async with self.lifespan():
            await stopped.wait()
            await self.app.lifecycle.drain(hurried=hurried)

    @property
    def app(self) -> HostApp:
        """The ASGI application, built at first use.

        Raises:
            ConfigurationError: two channels answer the same route, or one contributes what cannot be mounted.
        """
        if self._app is None:
            self._app = self._build()
        return self._app

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Serve one ASGI connection: the host is an ASGI application, to serve or to mount."""
        await self.app(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None, None]:
        """Start the host and stop it when the block ends; a parent application that mounts the host must run this.

        Raises:
            Exception: the first error of a start-up or shutdown callback; all of them have run.
        """
        async with self.app.lifespan(app):
            yield

    def serve(self, host: str = "127.0.0.1", port: int = 8000, *, workers: int = 1, **options: Any) -> None:
        """Serve until SIGINT or SIGTERM; runs that are going on get `shutdown_grace` seconds to finish.

        `port` 0 takes a free one. `options` are uvicorn's (`log_level`, `ssl_certfile`, `root_path`, …).

        Raises:
            ConfigurationError: the extra `[serve]` is not installed, `workers` is not 1, an option is unknown, the
                state cannot be used, or the address cannot be bound.
            StoreUnavailable: the database cannot be reached.
        """
        from .serve import run  # noqa: PLC0415  the ASGI server is an optional dependency

        run(self.app, host, port, workers=workers, options=options)

    async def reset_session(self, isolation_key: str, *, isolation_keys: IsolationKeys | None = None) -> bool:
        """Forget the sessions named `isolation_key`, each target's; `False` if there was none. Waits for runs that use them.

        `isolation_keys` says whose session it is; `None` means that of the current request, or, outside of one, of
        everybody who comes without keys.
        """
        partition = current_partition() if isolation_keys is None else isolation_keys.partition
        keys = [served.key for served in self.targets]
        resets = [await self._context.sessions.reset(partition, isolation_key, target=key) for key in keys]
        return any(resets)

    def _build(self) -> HostApp:
        contributions = [(channel, channel.contribute(self._context)) for channel in self.channels]
        lifecycle = self._new_lifecycle([part for _, part in contributions])
        return HostApp(
            contributions,
            lifecycle,
            announcement={
                "targets": {served.name: served.target.kind for served in self.targets},
                "channels": {channel.name: channel.path or "/" for channel in self.channels},
                "state": self._state.kind,
            },
            trust_isolation_headers=self._trusts_headers,
            resolve_partition=self._resolve_partition,
            debug=self.debug,
        )

    async def _prepare(self) -> None:
        for served in self.targets:
            await prepare(served.target)
        await self._state.open()

    def _new_lifecycle(self, parts: Sequence[ChannelContribution]) -> Lifecycle:
        state = self._state
        return Lifecycle(
            self._context.engine,
            shared_engine=self._context.shared_engine,
            # The state is open before a channel starts and until the last has stopped; in between it is pruned.
            preparation=self._prepare,
            on_startup=[*chain.from_iterable(part.on_startup for part in parts), state.pruner.start],
            on_ready=[*chain.from_iterable(part.on_ready for part in parts)],
            on_drained=[*chain.from_iterable(part.on_drained for part in parts)],
            on_shutdown=[
                state.close,
                *chain.from_iterable(part.on_shutdown for part in parts),
                state.pruner.stop,
            ],
            grace=self._grace,
            notice=self._notice,
        )


def _serve(hosted: object, location: CheckpointLocation | None, state: HostState) -> ServedTargets:
    """Return the targets of what is hosted. Its workflows keep their checkpoints in one place."""
    made: list[Checkpoints | None] = []

    def checkpoints(_: CheckpointLocation | None) -> Checkpoints | None:
        if not made:
            made.append(state.checkpoints(location))
        return made[0]

    is_mapping = isinstance(hosted, Mapping)
    # Of several targets none is told that it does not use the location, as long as one does.
    told = None if is_mapping else location
    served = ServedTargets.of(hosted, partial(choose_target, checkpoint_location=told, checkpoints=checkpoints))
    if is_mapping and location is not None and not made:
        logger.warning("checkpoint_location is for workflows, and there is none among the targets: it is not used.")
    if not made:
        # Nobody else would have what workflows have left that were served before forgotten.
        state.keep_pruned(state.left_checkpoints())
    for one in served:
        # A workflow's target may have brought a place of its own.
        state.keep_pruned(getattr(one.target, "checkpoints", None))
    return served


def _check_trust(resolve_partition: PartitionResolver | None, trust: bool | None) -> None:  # noqa: FBT001  the option as it came
    if resolve_partition is None:
        return
    if not callable(resolve_partition):
        raise ConfigurationError("resolve_partition must be a function of the request.")
    if trust:
        raise ConfigurationError(
            "trust_isolation_headers and resolve_partition both say whose a request is: leave one out."
        )


def new_context(targets: ServedTargets, state: HostState, *, debug: bool = False) -> ChannelContext:
    """Return what channels get of a host with these targets and this state."""
    log = MemoryRunLog()
    return ChannelContext(
        targets=targets,
        session_store=state.session_store,
        sessions=Sessions(state.session_store),
        engine=MemoryRunEngine(),
        run_log=log,
        durable_log=state.run_log or log,
        shared_engine=state.engine,
        debug=debug,
        database=state.database,
        owner=state.owner,
        presence=state.presence,
        left_checkpoints=state.left_checkpoints(),
        pruner=state.pruner,
    )


def _checked_channels(channels: Sequence[Channel]) -> tuple[Channel, ...]:
    names: set[str] = set()
    for channel in channels:
        if not all(hasattr(channel, name) for name in ("name", "path", "contribute")) or inspect.isclass(channel):
            raise ConfigurationError(f"{channel!r} is no channel: pass instances, such as ResponsesChannel().")
        if channel.name in names:
            raise ConfigurationError(f"Two channels are named {channel.name!r}: give each a name of its own.")
        names.add(channel.name)
        if channel.path and (not channel.path.startswith("/") or channel.path.endswith("/")):
            raise ConfigurationError(
                f"The path {channel.path!r} of channel {channel.name!r} must start with '/' and not end with it; "
                "an empty path is the root."
            )
    if not names:
        raise ConfigurationError("The host has no channels: pass at least one, such as ResponsesChannel().")
    return tuple(channels)
