"""The documentation site: every link and name resolves, nothing comes from a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FETCHED = re.compile(
    r"<(?:link|script|img|iframe|source)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^>]*>"
)
ASKED = {  # what a newcomer asks, and the page that answers
    "my own data": "own_data",
    "my own model": "models",
    "my GPUs": "gpus",
    "interrupted": "resuming",
    "two methods": "comparing",
}


@pytest.mark.slow
def test_site_is_whole_and_offline(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    strictly = ("--fail-on-warning", "--keep-going", "--quiet", "-d", tmp_path / "doctrees")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *strictly, "-c", "docs/site", ".", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = {p: p.read_text(encoding="utf-8") for p in (tmp_path / "site").rglob("*.html")}
    for page, text in pages.items():
        assert not FETCHED.findall(text), page
    for style in (tmp_path / "site" / "_static").rglob("*.css"):
        assert not re.search(r"(@import|url\()\W*(https?:)?//", style.read_text()), style
    home = tmp_path / "site" / "docs" / "site" / "index.html"
    assert str(home.relative_to(tmp_path / "site")) in pages[tmp_path / "site" / "index.html"]
    rows = re.findall(r"<tr.*?</tr>", pages[home], re.DOTALL)
    for question, answer in ASKED.items():
        assert [row for row in rows if question in row and f'href="../{answer}.html"' in row]
    assert "<math" in pages[tmp_path / "site" / "docs" / "methods.html"]
    options = pages[home.with_name("options.html")]
    assert 'id="confval-method.lr"' in options
