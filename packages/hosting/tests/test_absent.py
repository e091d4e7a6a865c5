"""targets/absent.py: what tools use in the place of an agent executes nothing."""

import pytest

from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.targets.absent import AbsentTarget
from agent_framework_hosting.targets.base import Target, TargetInput


def test_nobody_is_a_target_that_does_not_run() -> None:
    target: Target = AbsentTarget()

    with pytest.raises(ConfigurationError, match="no agent"):
        target.stream(TargetInput(messages="q", partition=SHARED))

    assert target.server_tools() == frozenset()
    assert target.new_session().state == {}
