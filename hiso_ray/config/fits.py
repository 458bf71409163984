"""Whether the sections of an experiment fit each other, and the model."""

from __future__ import annotations

from hiso_ray.config.aggregation import check_attackers, check_cohort
from hiso_ray.config.guarantees import refusal
from hiso_ray.config.section import given
from hiso_ray.config.sections import Sections
from hiso_ray.errors import UserError

LARGEST_HESSIAN = 20_000_000  # weights; a Hessian-vector product holds several graphs of the model


def check(experiment: Sections) -> None:
    """
    Raises:
        UserError: what does not fit, and what to change.
    """
    _one_client(experiment)
    _something_to_aggregate(experiment)
    if experiment.method.row.aggregation == "mean":
        check_cohort(experiment.aggregation, experiment.federation.clients_per_round)
    check_attackers(experiment.attack, experiment.federation.num_clients)
    _privacy(experiment)
    _controls(experiment)
    _differentiable(experiment)
    _several_local_steps(experiment)
    _schedule(experiment)
    _window(experiment)
    _layer_by_layer(experiment)


def check_dimension(experiment: Sections, dimension: int) -> None:
    """
    Raises:
        UserError: the model has too many trainable weights to be differentiated twice, or fewer
            than it is projected on.
    """
    method = experiment.method
    if method.row.projects and method.projections > dimension:
        raise UserError(
            f"method.projections = {method.projections:,} for {dimension:,} trainable weights: "
            f"{method.name} would send more numbers than there are weights; give at most "
            f"{dimension:,}, or use fedavg"
        )
    wanted = {
        f"method.curvature = {method.curvature}": method.curvature_row.measures,
        f"diagnostics.every = {experiment.diagnostics.every}": experiment.diagnostics.every > 0,
    }
    for what, is_wanted in wanted.items():
        if is_wanted and dimension > LARGEST_HESSIAN:
            raise UserError(
                f"{what} measures the Hessian's diagonal, too much for {dimension:,} trainable "
                f"weights (at most {LARGEST_HESSIAN:,}): leave it out, or train fewer weights "
                "(task.lora.r 8, or task.sparse_fraction)"
            )


def _one_client(experiment: Sections) -> None:
    federation, method = experiment.federation, experiment.method
    if method.row.one_client and federation.num_clients > 1:
        raise UserError(
            f"method.name = {method.name} is not federated, federation.num_clients = "
            f"{federation.num_clients}: set num_clients and clients_per_round to 1 (the one client "
            "then holds all examples), or use decomfl with probe central"
        )


def _something_to_aggregate(experiment: Sections) -> None:
    """Rejects options of aggregation, precision and attack that would be ignored or misused."""
    method, name = experiment.method, experiment.method.name
    precision, rule = experiment.uplink.precision, experiment.aggregation.rule
    scalars = {
        f"uplink.precision = {precision}": precision != "float32",
        f"aggregation.rule = {rule}": rule != "mean",
        f"attack.kind = {experiment.attack.kind}": experiment.attack.kind != "none",
    }
    found = [what for what, is_given in scalars.items() if is_given]
    if experiment.sends_weights and found:
        raise UserError(
            f"{', '.join(found)}: of scalars only, and {name} sends weights; leave it out"
        )
    weights = experiment.aggregation.weights
    if method.row.aggregation == "majority":
        own = ("rule", "weights")
        found = [f"aggregation.{f}" for f in own if f in given(experiment.aggregation)]
        if precision != "float32":
            found.append("uplink.precision")
        if found:
            raise UserError(
                f"{', '.join(found)}: {name} sends signs and takes their majority; leave it out, "
                "or use decomfl with uplink.precision sign"
            )
    if method.directions == "per_client" and rule != "mean":
        raise UserError(
            f"aggregation.rule = {rule} compares clients that probe along the same directions; "
            f"with method.directions per_client ({name}) use mean"
        )
    clip = experiment.privacy.clip
    mixed = {
        f"uplink.precision = {precision}": precision in ("int8", "sign"),
        f"aggregation.rule = {rule}": rule in ("krum", "multi_krum"),
        f"privacy.clip = {clip}": clip != "none",
    }
    found = [what for what, is_given in mixed.items() if is_given]
    if method.row.second_differences and found:
        raise UserError(
            f"{', '.join(found)}: {name} sends first and second differences together, which differ "
            "too much in size to share a scale or a norm; use float32 or float16, another rule, "
            "and no clip"
        )
    if method.probe == "exact" and "mu" in given(method):
        raise UserError(
            f"method.mu = {method.mu:g} with probe exact: there is no finite difference; leave mu "
            "out, or set probe to forward or central"
        )
    if method.row.one_client and weights != "uniform":
        raise UserError(f"aggregation.weights = {weights}: {name} has one client; leave it out")


def _controls(experiment: Sections) -> None:
    method = experiment.method
    if not method.curvature_row.control:
        return
    if method.row.second_differences or method.curvature_in == "probe":
        where = f"method.name {method.name}, method.curvature_in {method.curvature_in}"
        raise UserError(
            f"method.curvature = {method.curvature} with {where}: this control learns H from steps "
            "that H has scaled; use method.name hiso and curvature_in both or update"
        )


def _differentiable(experiment: Sections) -> None:
    method = experiment.method
    wanted = {
        "method.probe = exact": method.probe == "exact",
        f"method.curvature = {method.curvature}": method.curvature_row.measures,
        f"diagnostics.every = {experiment.diagnostics.every}": experiment.diagnostics.every > 0,
        f"method.name = {method.name}": method.row.projects,
    }
    dtype, found = experiment.task.dtype, [what for what, is_wanted in wanted.items() if is_wanted]
    if found and dtype != "float32":
        raise UserError(
            f"{', '.join(found)} with task.dtype = {dtype}: derivatives of half-precision forward "
            "passes are off by per cents, or overflow; set task.dtype to float32"
        )


def _several_local_steps(experiment: Sections) -> None:
    method = experiment.method
    if experiment.federation.local_steps > 1:
        return
    unread = [n for n in ("momentum", "prox") if not method.row.draws and getattr(method, n) > 0]
    if method.hessian_update == "all" and not method.row.second_differences:
        unread.append("hessian_update")
    if unread:
        raise UserError(
            f"method.{' and method.'.join(unread)} of {method.name} would change nothing before "
            "the second local step: set federation.local_steps to 2 or more"
            + (", or use fedavg" if "prox" in unread else "")
        )


def _schedule(experiment: Sections) -> None:
    """Rejects a warm-up and a schedule that the run does not reach the end of, and rates of 0."""
    method, rounds = experiment.method, experiment.federation.rounds
    falls = method.schedule != "constant"
    end = rounds if method.schedule_rounds == "auto" else method.schedule_rounds
    if end > rounds:
        raise UserError(
            f"method.schedule_rounds = {end} is longer than the run, federation.rounds = {rounds}: "
            f"give the run {end} rounds, or the schedule {rounds} or fewer (auto: all of the run's)"
        )
    if falls and end < rounds and method.schedule_floor == 0:
        raise UserError(
            f"federation.rounds = {rounds}: the {method.schedule} schedule has the rate at 0 from "
            f"round {end} on (method.schedule_rounds), so later rounds would change nothing; end "
            f"there, or start a new run with a schedule of {rounds} rounds, or with a "
            "schedule_floor above 0, at which later rounds go on"
        )
    if method.warmup_rounds > end - falls:
        reach = f"fall in the schedule's {end}" if falls else f"reach method.lr in {end}"
        raise UserError(
            f"method.warmup_rounds = {method.warmup_rounds}: the rate would never {reach} rounds; "
            f"lower it to {end - falls} or less"
        )


def _window(experiment: Sections) -> None:
    """Rejects an average over more rounds than there are."""
    kept, rounds = experiment.method.averaging, experiment.federation.rounds
    window = round(1 / (1 - kept), 6)  # 1 / (1 - 0.9) is a little more than 10 in floats
    if window > rounds:
        raise UserError(
            f"method.averaging = {kept:g} averages over about 1 / (1 - {kept:g}) = {window:g} "
            f"rounds, more than federation.rounds = {rounds}: lower it to {1 - 1 / rounds:.6g} or "
            "less, or give more rounds"
        )


def whole_only(experiment: Sections) -> list[str]:
    """Reasons why perturbed weights cannot be made layer by layer; empty if they can."""
    task, method = experiment.task, experiment.method
    if method.row.first_order:
        return [f"{method.name} computes gradients and perturbs nothing"]
    reasons = []
    if method.generator == "torch":
        reasons.append("method.generator = torch makes no slice of a direction alone, use philox")
    if method.probe == "exact":
        reasons.append("method.probe = exact differentiates at all weights, use forward or central")
    if task.sparse_fraction < 1:
        reasons.append(
            f"task.sparse_fraction = {task.sparse_fraction:g} keeps a dense copy of all weights, "
            "use 1"
        )
    return reasons


def _layer_by_layer(experiment: Sections) -> None:
    if experiment.resources.probe_weights == "layer" and (reasons := whole_only(experiment)):
        raise UserError(
            f"resources.probe_weights = layer: {'; '.join(reasons)}; or use probe_weights whole"
        )


def _privacy(experiment: Sections) -> None:
    if (why := refusal(experiment)) is not None:
        raise UserError(why)
