"""The shape of the code: import directions, a pure core, budgets, a test file for each module."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path
    for package in ("hosting/agent_framework_hosting", "hosting-responses/agent_framework_hosting_responses")
    for path in (ROOT / "packages" / package).rglob("*.py")
    # What Alembic runs: as long as the schema is, and tested by upgrading databases (test_schema.py).
    if path.parent.name not in {"migrations", "versions"}
)
MOST_LINES_OF_A_MODULE = 400
MOST_LINES_OF_A_FUNCTION = 50

SKIPPED_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def code_lines(source: str) -> set[int]:
    """Lines that hold code: no comments, no docstrings, no blank lines."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SKIPPED_TOKENS:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstrings


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["lint-imports"],
        # Twice, because both packages have test files of the same name.
        ["mypy", "packages/hosting"],
        ["mypy", "packages/hosting-responses", "tests", "samples", "benchmarks"],
    ],
    ids=" ".join,
)
@pytest.mark.timeout(600)
def test_the_tool_has_nothing_to_say(command: list[str]) -> None:
    tool = Path(sys.executable).parent / command[0]

    result = run(str(tool), *command[1:])

    assert result.returncode == 0, result.stdout + result.stderr


def test_the_protocol_core_loads_neither_a_web_framework_nor_the_official_client() -> None:
    modules = [
        f"agent_framework_hosting_responses.protocol.{path.stem}"
        for path in MODULES
        if path.parent.name == "protocol" and path.stem != "__init__"
    ]
    program = (
        f"import sys, {', '.join(modules)}; print(sorted({{'starlette', 'openai', 'uvicorn'}} & set(sys.modules)))"
    )

    result = run(sys.executable, "-c", program)

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "packages")))
def test_the_module_keeps_its_budgets_and_has_a_test(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = code_lines(source)
    tests = {test.name for test in ROOT.rglob("test_*.py") if ".venv" not in test.parts}

    long_functions = [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and sum(node.lineno <= line <= (node.end_lineno or 0) for line in lines) > MOST_LINES_OF_A_FUNCTION
    ]

    assert len(lines) <= MOST_LINES_OF_A_MODULE
    assert not long_functions
    assert path.name == "__init__.py" or f"test_{path.stem.strip('_')}.py" in tests, f"no test_{path.stem}.py"
