from __future__ import annotations

import pandas as pd

from hiso_ray.analysis.panels import over_rounds


def test_a_line_ends_where_the_first_seed_does() -> None:
    table = pd.DataFrame(
        [
            {"method": "hiso", "cell": "c", "seed": seed, "round": round_, "h": float(seed)}
            for seed, last in ((0, 20), (1, 20), (4, 10))
            for round_ in range(0, last + 1, 10)
        ]
    )
    (axes,) = over_rounds(table, {"h": "H"}).axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 10]
    assert [round(y, 6) for y in line.get_ydata()] == [1.666667] * 2
