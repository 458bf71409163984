"""``report --live``: the page follows the files, on loopback only."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from hiso_ray import Experiment
from hiso_ray.analysis import report
from hiso_ray.cli.commands import main
from hiso_ray.cli.watching import live

Make = Callable[..., Experiment]


def get(address: str, path: str = "", host: str | None = None) -> str:
    request = urllib.request.Request(address + path, headers={} if host is None else {"Host": host})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_the_page_is_made_again_when_files_change(
    finished: Path,
    killed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = (killed / "metrics.csv").read_text()
    (killed / "metrics.csv").unlink()
    pages: list[str] = []
    built: list[str] = []

    def write(folders: list[str], out: Path, thresholds: object) -> report.Report:
        built.append(str(folders))
        page = finished / "page.html"  # a real report takes long, and has its own tests
        rounds = report.study.read(*folders).rounds
        page.write_text(f"<body>{len(rounds)} evaluations</body>")
        return report.Report(None, [page])  # type: ignore[arg-type]

    def look(_: float) -> None:
        address = capsys.readouterr().out.partition("http://")[2].partition("/")[0] or look.address
        look.address = address
        pages.append(get(f"http://{address}/") + get(f"http://{address}/", "version"))
        for path, host in (("", "evil.example:80"), ("../etc/passwd", None)):
            with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
                get(f"http://{address}/", path, host)
        if len(pages) == 2:
            (killed / "metrics.csv").write_text(table)
        if len(pages) == 4:
            raise KeyboardInterrupt

    look.address = ""
    monkeypatch.setattr(live.report, "write", write)
    monkeypatch.setattr(live.time, "sleep", look)
    assert main(["report", str(killed), "--live", "--port", "0"]) == 0
    assert all("location.reload()" in page for page in pages)
    assert ["holds no round yet" in page for page in pages] == [True, True, False, False]
    assert "2 evaluations" in pages[2]
    assert [page[-1] for page in pages] == ["2", "2", "3", "3"]
    assert len(built) == 2  # nothing is made twice
    with pytest.raises(urllib.error.URLError):
        get(f"http://{look.address}/")


def test_a_port_that_is_taken_is_said(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["report", str(finished), "--live", "--port", port]) == 2
    assert f"--port {port}: taken by another program; give another one" in capsys.readouterr().err


def test_it_listens_on_loopback_only() -> None:
    page = live.Page()
    with live._serving(page, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        assert get(address) == ""
        page.show("<body></body>")
        assert "<script>" in get(address)
