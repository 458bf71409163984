"""Whether clipping means anything in a federation, and whether its ε can be stated."""

from __future__ import annotations

from collections.abc import Iterator

from hiso_ray.config.sections import Sections

# What these attackers send depends on other clients' scalars of the same round.
ATTACKS_THAT_READ_OTHERS = ("gaussian", "colluding")


def refusal(experiment: Sections) -> str | None:
    """Why clipping is meaningless here, or why no guarantee can be stated; otherwise None.

    Checks everything that ``hiso_ray.server.privacy`` assumes. Clipping alone promises nothing and
    needs only something to clip. Not checked, because the guarantee holds with them: the precision
    of the uplink, attackers that know only their own scalars, and dropout.
    """
    privacy, name = experiment.privacy, experiment.method.name
    if privacy.clip == "none":
        return None
    if experiment.sends_weights:
        return (
            f"privacy.clip = {privacy.clip:g} bounds scalars, and {name} sends weights: leave "
            "the privacy section out, or use a method that sends scalars"
        )
    if experiment.rule == "majority":
        return (
            f"privacy.clip = {privacy.clip:g} cannot change the majority that {name} decides "
            "by: leave the privacy section out, or use a method with a mean of scalars"
        )
    if privacy.noise == 0 or (obstacle := next(_obstacles(experiment), None)) is None:
        return None
    return (
        f"privacy.noise = {privacy.noise:g} promises an ε that cannot be stated: {obstacle}, "
        "or set privacy.noise to 0"
    )


def _obstacles(experiment: Sections) -> Iterator[str]:
    """Why ε cannot be stated, and what to change."""
    method, federation = experiment.method, experiment.federation
    if method.row.second_differences:
        yield (
            f"method.name = {method.name} also publishes second differences, which are not "
            "clipped; use another method"
        )
    if method.directions != "shared":
        yield (
            f"method.directions = {method.directions} publishes every client's scalars one by "
            "one, so no mean hides them; use a method with shared directions"
        )
    if method.curvature_row.measures:
        yield (
            f"method.curvature = {method.curvature} reads the data, not the noisy scalars alone; "
            "use another curvature"
        )
    if federation.participation != "uniform":
        yield (
            f"federation.participation = {federation.participation} samples some clients more "
            "often than others, or in turn; set it to uniform"
        )
    deadline = experiment.devices.deadline
    if deadline != "none" and federation.clients_per_round < federation.num_clients:
        yield (
            f"devices.deadline = {deadline} makes fast clients likelier to be in the mean, and "
            "the guarantee rests on uniform sampling; set it to none, or sample every client"
        )
    if experiment.rule != "mean":
        yield (
            f"aggregation.rule = {experiment.rule} can move further than a mean when one client "
            "changes; set it to mean"
        )
    if experiment.aggregation.weights != "uniform":
        yield (
            f"aggregation.weights = {experiment.aggregation.weights} weighs a client by its "
            "private number of examples; set it to uniform"
        )
    if experiment.attack.kind in ATTACKS_THAT_READ_OTHERS:
        yield (
            f"attack.kind = {experiment.attack.kind} repeats what other clients computed, so one "
            "client moves more than its own scalars; use sign_flip, scaled or constant"
        )
    delta, clients = experiment.privacy.delta, federation.num_clients
    if delta * clients >= 1:
        yield (
            f"privacy.delta = {delta:g} is not below 1/num_clients = {1 / clients:g}: publishing "
            "one whole client at random would pass; lower it"
        )
