"""Sweeps over any field of the experiment, on Ray Tune.

>>> from hiso_ray.sweeps import Sweep, run_sweep
>>> rates = Sweep(name="rates", grid={"method.lr": [0.01, 0.02], "seed": [0, 1, 2]})
>>> run_sweep(rates, "runs/rates")                            # doctest: +SKIP
"""

from hiso_ray.sweeps.runner import run_sweep
from hiso_ray.sweeps.table import Sweep

__all__ = ["Sweep", "run_sweep"]
