import pytest

from agent_framework_hosting import (
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


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (ConfigurationError, HostingError),
        (TargetError, HostingError),
        (StoreError, HostingError),
        (StoreUnavailable, StoreError),
        (AlreadyExists, StoreError),
        (StaleWrite, StoreError),
        (RunError, HostingError),
        (RunCancelled, RunError),
        (LeaseLost, RunError),
    ],
)
def test_every_error_hangs_where_the_design_puts_it(error: type[HostingError], parent: type[HostingError]) -> None:
    assert error.__bases__ == (parent,)


def test_one_except_clause_catches_everything_the_host_raises_on_purpose() -> None:
    with pytest.raises(HostingError, match="taken"):
        raise AlreadyExists("The id is taken.")
