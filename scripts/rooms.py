"""Draws the map of the package: its subpackages ("rooms"), lowest first, and their imports.

python scripts/rooms.py          # writes docs/images/rooms.png
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from test_imports import FILES, FLOORS, GROUND, ours, room  # noqa: E402

from hiso_ray.analysis.style import STYLE  # noqa: E402


def about(name: str) -> str:
    """The first line of the room's docstring."""
    path = next(p for p in FILES if room(p) == name and p.name == "__init__.py")
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.splitlines()[0].rstrip(".").replace("``", "")


def main() -> None:
    arrows = {(room(path), target) for path in FILES for target, _ in ours(path)}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 5.6))
        floor = {name: number for number, name in enumerate(FLOORS, 1)}
        for name, y in floor.items():
            axes.text(0, y, f"{name}/", ha="right", va="center", weight="bold")
            axes.text(1.9, y, about(name), va="center", fontsize=7)
        axes.text(0, 0, "ground", ha="right", va="center", weight="bold")
        axes.text(1.9, 0, ", ".join(GROUND), va="center", fontsize=7)
        for source, target in sorted(arrows):
            if source in floor and target in floor and source != target:
                top, bottom = floor[source], floor[target]
                axes.annotate(
                    "", (0.12, bottom), (0.12, top),
                    arrowprops={"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.35",
                                "lw": 0.6, "color": "0.4"},
                )  # fmt: skip
        axes.set(xlim=(-1.2, 9), ylim=(-0.7, len(FLOORS) + 0.7))
        axes.axis("off")
        out = ROOT / "docs" / "images" / "rooms.png"
        figure.savefig(out, bbox_inches="tight", metadata={"Software": None})
    print(out.relative_to(ROOT))


if __name__ == "__main__":
    main()
