"""Sends the requests of a `.rest` file in their order, as an editor's REST client does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

NAME = re.compile(r"# @name (\w+)")
REFERENCE = re.compile(r"\{\{(\w+)\.response\.body\.([\w.\[\]]+)\}\}")


@dataclass(frozen=True)
class Sent:
    """One request that was sent. `expected` is the status that its title names."""

    title: str
    expected: int
    answer: httpx2.Response


def send(path: Path, base_url: str) -> list[Sent]:
    """Send all requests of the file to a server; return them with their answers."""
    _, *blocks = path.read_text(encoding="utf-8").split("### ")
    answers: dict[str, Any] = {}
    with httpx2.Client(timeout=200, trust_env=False, verify=False) as client:
        return [_sent(block.replace("{{base}}", base_url), client, answers) for block in blocks]


def _sent(block: str, client: httpx2.Client, answers: dict[str, Any]) -> Sent:
    block = REFERENCE.sub(lambda found: _member(answers[found[1]], found[2]), block)
    head, _, body = block.partition("\n\n")
    title, *lines = head.strip().splitlines()
    name = NAME.fullmatch(lines[0])
    request, *headers = lines[1:] if name else lines
    method, url = request.split(" ")
    answer = client.request(method, url, headers=dict(line.split(": ") for line in headers), content=body)
    if name:
        answers[name[1]] = answer.json()
    status = re.search(r": (\d{3})$", title)
    return Sent(title, int(status[1]) if status else 200, answer)


def _member(value: Any, path: str) -> str:
    for step in re.findall(r"\w+", path):
        value = value[int(step) if isinstance(value, list) else step]
    assert isinstance(value, str)
    return value
