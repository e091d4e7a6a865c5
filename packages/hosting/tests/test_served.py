from typing import Any

import pytest

from agent_framework_hosting import ConfigurationError
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.targets.served import LONGEST_NAME, ServedTargets
from agent_framework_hosting.testing.agents import ScriptedAgent

WRITER, CRITIC = ScriptedAgent("w", name="ada"), ScriptedAgent("c", name="bob")


def served(hosted: object) -> ServedTargets:
    def choose(given: Any) -> AgentTarget:
        return AgentTarget(given)

    return ServedTargets.of(hosted, choose)


def test_one_target_has_its_own_name_and_nothing_else_in_what_is_stored() -> None:
    targets = served(WRITER)

    assert len(targets) == 1
    assert targets.only is not None
    assert (targets.only.name, targets.only.key) == ("ada", "")
    assert targets.named("ada") is targets.stored("") is targets.only
    assert targets.stored("ada") is None


def test_several_targets_have_the_names_that_they_were_given_in_that_order() -> None:
    targets = served({"team/writer": WRITER, "critic": CRITIC})

    assert [(one.name, one.key, one.target.hosted) for one in targets] == [
        ("team/writer", "team/writer", WRITER),
        ("critic", "critic", CRITIC),
    ]
    assert targets.only is None
    assert targets.named("ada") is targets.stored("") is None
    critic = targets.named("critic")
    assert critic is not None
    assert critic is targets.stored("critic")
    assert critic.target.hosted is CRITIC


def test_a_mapping_of_one_gives_a_name_to_the_only_target() -> None:
    targets = served({"writer": WRITER})

    assert targets.only is targets.named("writer") is targets.stored("writer")
    assert targets.stored("") is None


def test_one_object_may_be_served_under_two_names() -> None:
    assert [one.target.hosted for one in served({"a": WRITER, "b": WRITER})] == [WRITER, WRITER]


@pytest.mark.parametrize(
    ("hosted", "message"),
    [
        ({}, "The mapping of targets is empty"),
        ({"": WRITER}, "'' cannot be the name of a target"),
        ({"  ": WRITER}, "cannot be the name"),
        ({"two\nlines": WRITER}, "cannot be the name"),
        ({"\ud800": WRITER}, "cannot be the name"),
        ({"x" * (LONGEST_NAME + 1): WRITER}, "cannot be the name"),
        ({3: WRITER}, "3 cannot be the name"),
        ({"writer": WRITER, "three": 3}, "The target 'three': int is no agent"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_to_change(hosted: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        served(hosted)
