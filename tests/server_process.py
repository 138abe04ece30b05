"""llama-server as a process, asked over HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Ask = Callable[..., Any]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def start(server: Path, *argv: str | Path) -> Iterator[Ask]:
    """Run a server; yields a function that asks it and returns its JSON."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as log:
        command = [str(one) for one in (server, "--host", "127.0.0.1", "--port", str(port), "--no-webui", *argv)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

        def ask(method: str, path: str, body: object = None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
            request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)

        try:
            for _ in range(6000):
                if process.poll() is not None:
                    log.seek(0)
                    raise AssertionError(f"the server ended with {process.returncode}:\n{log.read()}")
                try:
                    ask("GET", "/health")
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)
            else:
                raise AssertionError("the server does not answer")
            yield ask
        finally:
            process.terminate()
            process.wait(600)
