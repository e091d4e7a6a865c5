"""Host a Microsoft Agent Framework agent or workflow behind channels."""

from .channel import (
    Channel,
    ChannelCommand,
    ChannelCommandContext,
    ChannelContribution,
    ExceptionHandler,
    LifecycleCallback,
)
from .context import ChannelContext, HostedStream
from .errors import (
    AlreadyExists,
    ConfigurationError,
    HostingError,
    LeaseLost,
    RunCancelled,
    RunError,
    StaleWrite,
    StoreError,
    StoreUnavailable,
    TargetError,
)
from .hooks import ChannelResponseHook, ChannelRunHook, ChannelStreamUpdateHook
from .host import AgentFrameworkHost
from .isolation import (
    ISOLATION_HEADER_CHAT,
    ISOLATION_HEADER_USER,
    IsolationKeys,
    Partition,
    get_current_isolation_keys,
    reset_current_isolation_keys,
    set_current_isolation_keys,
)
from .middleware import PartitionResolver
from .runs.base import Attempt, LogEntry, RunEngine, RunKey, RunLog, RunStatus
from .stores.base import Prunable, Retention, SessionKey, SessionStore, StoreStats
from .targets.base import Erasable, HostedRun, Preparable, Resumable, Resumption, Target, TargetInput
from .targets.choice import HostTarget
from .types import ChannelIdentity, ChannelRequest, ChannelSession, HostedRunResult, HostStatePaths

__all__ = [
    "ISOLATION_HEADER_CHAT",
    "ISOLATION_HEADER_USER",
    "AgentFrameworkHost",
    "AlreadyExists",
    "Attempt",
    "Channel",
    "ChannelCommand",
    "ChannelCommandContext",
    "ChannelContext",
    "ChannelContribution",
    "ChannelIdentity",
    "ChannelRequest",
    "ChannelResponseHook",
    "ChannelRunHook",
    "ChannelSession",
    "ChannelStreamUpdateHook",
    "ConfigurationError",
    "Erasable",
    "ExceptionHandler",
    "HostStatePaths",
    "HostTarget",
    "HostedRun",
    "HostedRunResult",
    "HostedStream",
    "HostingError",
    "IsolationKeys",
    "LeaseLost",
    "LifecycleCallback",
    "LogEntry",
    "Partition",
    "PartitionResolver",
    "Preparable",
    "Prunable",
    "Resumable",
    "Resumption",
    "Retention",
    "RunCancelled",
    "RunEngine",
    "RunError",
    "RunKey",
    "RunLog",
    "RunStatus",
    "SessionKey",
    "SessionStore",
    "StaleWrite",
    "StoreError",
    "StoreStats",
    "StoreUnavailable",
    "Target",
    "TargetError",
    "TargetInput",
    "get_current_isolation_keys",
    "reset_current_isolation_keys",
    "set_current_isolation_keys",
]
