"""``hiso-ray report --live``: the page of a report, rebuilt when a run's files change.

The main thread builds pages, another serves the newest one. Browsers ask for its number and load it
again when that has changed.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from hiso_ray.analysis import report, sweep_files
from hiso_ray.analysis.load import NothingToShow
from hiso_ray.cli.bars import Steps
from hiso_ray.errors import UserError
from hiso_ray.run_folder.state import GROWING

HOST = "127.0.0.1"  # loopback only: the page shows configurations and paths
LOOK_SECONDS = 2.0
SHARE = 0.5  # of the time, at most, is spent building pages
SCRIPT = """<script>
let shown;
setInterval(async () => {
  try {
    const now = await (await fetch("version")).text();
    if ((shown ??= now) !== now) location.reload();
  } catch { document.title = "(ended) " + document.title.replace("(ended) ", ""); }
}, 2000);
</script>
"""


class Page:
    """The newest page, and how many there were before it."""

    def __init__(self) -> None:
        self.html, self.version = b"", 0

    def show(self, html: str) -> None:
        self.html = html.replace("</body>", f"{SCRIPT}</body>").encode()
        self.version += 1


def serve(
    folders: Sequence[str],
    out: str,
    thresholds: Sequence[float] | None,
    port: int,
    console: Console,
) -> NoReturn:
    """Serves the report of run and sweep folders until it is interrupted.

    Args:
        out, thresholds: see ``report.write``.
        port: 0 for any that is free.

    Raises:
        UserError: the port is taken, or what ``report.write`` raises; a folder without an evaluated
            round is waited for.
    """
    for folder in folders:
        sweep_files.kind_of(Path(folder))
    page, before = Page(), None
    page.show(_plain("The report is being made."))
    with _serving(page, port) as address:
        console.print(
            f"the report is at {address}, for this machine only; it follows the files until Ctrl-C",
            highlight=False,
            soft_wrap=True,
        )
        while True:
            began, now = time.monotonic(), _stamps(folders)
            if now != before:
                with Steps(console):
                    page.show(_built(folders, out, thresholds))
                before = now
            time.sleep(max(LOOK_SECONDS, (time.monotonic() - began) / SHARE))


def _built(folders: Sequence[str], out: str, thresholds: Sequence[float] | None) -> str:
    try:
        made = report.write(folders, out, thresholds)
    except NothingToShow as wait:
        return _plain(str(wait))
    return made.files[-1].read_text(encoding="utf-8")


def _plain(text: str) -> str:
    return f"<!doctype html><title>Report</title><body><p>{escape(text)}</p></body>"


def _stamps(folders: Sequence[str]) -> list[tuple[Path, int, int]]:
    """Path, time and size of every file that a report is made of."""
    runs = [run for folder in map(Path, folders) for run in (folder, *sweep_files.begun(folder))]
    names = (*GROWING, sweep_files.OUTCOMES, "trials.parquet", "rounds.parquet")
    found = []
    for path in (run / name for run in runs for name in names):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((path, stat.st_mtime_ns, stat.st_size))
    return found


@contextmanager
def _serving(page: Page, port: int) -> Iterator[str]:
    """Serves the page from another thread; yields its address.

    Raises:
        UserError: the port is taken, or may not be used.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(page))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "taken by another program" if taken else error.strerror
        raise UserError(
            f"--port {port}: {why}; give another one, or --port 0 for any that is free"
        ) from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def _handler(page: Page) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page of elsewhere whose name was made to mean this machine is refused.
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (HOST, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path == "/":
                self._answer(page.html, "text/html; charset=utf-8")
            elif self.path == "/version":
                self._answer(str(page.version).encode(), "text/plain")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, content: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Prints nothing for each request."""

    return Handler
