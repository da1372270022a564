"""Serving a site to browsers on this machine, and to nobody else."""

from __future__ import annotations

import contextlib
import functools
import http.server
from http import HTTPStatus
from pathlib import Path
from typing import Any

from separatrix.lab.errors import UsageError

HOST = "127.0.0.1"


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Server of the files in ``folder`` on the loopback interface; port 0 takes any that is free.

    Raises
    ------
    UsageError
        If the port is in use or may not be used.
    """
    try:
        return http.server.ThreadingHTTPServer((HOST, port), functools.partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise UsageError(f"port = {port} cannot be used on {HOST} ({error.strerror}): choose another one.") from None


def address(server: http.server.ThreadingHTTPServer) -> str:
    """What to type into a browser."""
    return f"http://{HOST}:{server.server_address[1]}/"


def until_interrupted(server: http.server.ThreadingHTTPServer) -> None:
    """Serve until Ctrl-C, which is how a server is meant to end."""
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files only; a request that names another host comes from a page that pretends to be this one."""

    def send_head(self) -> Any:
        port = self.connection.getsockname()[1]
        allowed = {f"{name}{suffix}" for name in (HOST, "localhost") for suffix in ("", f":{port}")}
        if self.headers.get("Host") not in allowed:
            self.send_error(HTTPStatus.FORBIDDEN, "Only this machine is served")
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        del path
        self.send_error(HTTPStatus.NOT_FOUND, "There is no such page")

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # the site may be built again meanwhile
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args  # the terminal is for what its user asked
