"""The table of methods: what each is, what it sends, and its defaults for the method's fields.

A method is one row, here or from another package (``outside``). Its mathematics is in
``hiso_ray.method``: the scalar family in ``scalar`` (with ``naming``, ``direction``, ``probe`` and
``curvature``), clients' first-order steps in ``first_order``, their projection in ``projection``;
the server's optimizers are in ``hiso_ray.server.optimizers``.
"""

from __future__ import annotations

from hiso_ray.config.method_row import Method
from hiso_ray.config.outside import outside

_RATE = frozenset({"lr", "schedule", "schedule_rounds", "schedule_floor", "warmup_rounds"})
_EVERY = _RATE | {"client_loss"}
_PROBING = _EVERY | {"mu", "num_perturbations", "probe", "generator", "distribution"}
_CURVED = frozenset(
    {"curvature", "curvature_in", "curvature_rounds", "hessian_retention", "hessian_eps"}
    | {"hessian_update"}
)
_FOLD = _PROBING | {"averaging"}
_FLAT_SCALARS = _FOLD | {"directions", "momentum"}
_LOCAL_SGD = _EVERY | {"momentum", "weight_decay", "server_lr"}
_PROJECTING = _LOCAL_SGD | {"projections", "averaging", "generator", "distribution"}
_ADAPTIVE = _LOCAL_SGD | {"server_beta1", "server_beta2", "server_eps"}


METHODS: dict[str, Method] = {
    "hiso": Method(
        "Li et al. 2026, arXiv 2506.02370",
        "x ← x − η H^{-1/2} ḡu, H ← βH + (1−β)(Δ² + ε); ḡ is the cohort's mean scalar",
        _FLAT_SCALARS | _CURVED,
    ),
    "decomfl": Method(
        "Li et al. 2025, arXiv 2405.15861",
        "x ← x − η ḡu: HiSo with H = 1",
        _FLAT_SCALARS,
        own={"curvature": "none"},
    ),
    "mezo": Method(
        "Malladi et al. 2023, arXiv 2305.17333",
        "x ← x − η g u, one client, central differences",
        _FLAT_SCALARS - {"directions"},
        own={"curvature": "none", "num_perturbations": 1, "probe": "central"},
        one_client=True,
    ),
    "hizoo": Method(
        "Zhao et al. 2025, arXiv 2402.15173",
        "H ← βH + (1−β)(½ mean|c| H u² + ε), then x ← x − η H^{-1/2} ḡu; c: second difference",
        _FLAT_SCALARS | _CURVED,
        own={"num_perturbations": 1, "probe": "central", "hessian_retention": 0.999}
        | {"hessian_update": "all"},
        fixed=frozenset({"probe"}),
        second_differences=True,
    ),
    "feedsign": Method(
        "Cai et al. 2025, arXiv 2501.17610",
        "x ← x − η s u; s = ±1 is the majority of the clients' signs of g",
        _FOLD | {"momentum"},
        own={"curvature": "none", "num_perturbations": 1, "probe": "central"},
        uplink="sign",
        aggregation="majority",
    ),
    "fedkseed": Method(
        "Qin et al. 2024, arXiv 2312.06353",
        "x ← x − (η/m) Σ_i g_i u_{j(i)}; j(i) is drawn from K seeds, whose sums are all there is",
        _FOLD | {"seed_pool"},
        own={
            "curvature": "none",
            "num_perturbations": 1,
            "probe": "central",
            "directions": "per_client",
            "seed_pool": 4096,
        },
    ),
    "ferret": Method(
        "Shu et al. 2025, arXiv 2409.06277",
        "x ← x − η_s ḡu in blocks; g = <x − x_{i,τ}, u> after τ steps of SGD, along K directions",
        _PROJECTING,
        own={"curvature": "none"},
    ),
    "fedzo": Method(
        "Fang et al. 2022, arXiv 2201.09531",
        "x ← x + η_s mean_i(x_{i,τ} − x); clients take τ zeroth-order steps on their own",
        _PROBING | {"server_lr"},
        sends="weights",
        own={"curvature": "none", "directions": "per_client"},
        on_sphere=True,
    ),
    "fedavg": Method(
        "McMahan et al. 2017, arXiv 1602.05629",
        "x ← x + η_s Δ, Δ = mean_i(x_{i,τ} − x); clients take τ steps of SGD",
        _LOCAL_SGD,
        sends="weights",
        own={"curvature": "none"},
    ),
    "fedadam": Method(
        "Reddi et al. 2021, arXiv 2003.00295",
        "m ← β₁m + (1−β₁)Δ, v ← β₂v + (1−β₂)Δ², x ← x + η_s m/(√v + τ)",
        _ADAPTIVE,
        sends="weights",
        own={"curvature": "none", "server_lr": 0.01},
        server="adam",
    ),
    "fedyogi": Method(
        "Reddi et al. 2021, arXiv 2003.00295",
        "as FedAdam, with v ← v − (1−β₂)Δ² sign(v − Δ²)",
        _ADAPTIVE,
        sends="weights",
        own={"curvature": "none", "server_lr": 0.01},
        server="yogi",
    ),
    "fedadagrad": Method(
        "Reddi et al. 2021, arXiv 2003.00295",
        "as FedAdam, with v ← v + Δ² and β₁ = 0",
        _ADAPTIVE - {"server_beta2"},
        sends="weights",
        own={"curvature": "none", "server_lr": 0.01, "server_beta1": 0.0},
        server="adagrad",
    ),
    "fedprox": Method(
        "Li et al. 2020, arXiv 1812.06127",
        "FedAvg whose clients minimise F_i + (ϱ/2)‖x − x_r‖²",
        _LOCAL_SGD | {"prox"},
        sends="weights",
        own={"curvature": "none", "prox": 0.01},
    ),
}
METHODS |= outside("hiso_ray.methods", METHODS)
