"""Client actors that may die, hang, or leave with their node, and come back.

Each member has at most one message at a time. A failed message goes to any free member. Meanwhile
Ray restarts the failed member at x_0, and its next message brings it up to date. Messages are
serialized here, so that their size is measured and not estimated.

Retries isolate the client that keeps failing: a failed piece of work is retried once, and is then
split into one message per work unit (or evaluation batch), until one has failed ``resources.tries``
times. A member on which anything failed is restarted, so each try runs on a fresh or another
member: an error may have left its weights half updated, or its GPU unusable. Results do not depend
on which member computes them, so failures do not change them.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError

from hiso_ray.config import Experiment
from hiso_ray.errors import Behind, NodesLost, TurnFailed, UserError
from hiso_ray.execution.cluster.cause_of_death import Deaths, Killed
from hiso_ray.execution.cluster.client_actor import ClientActor
from hiso_ray.execution.cluster.members import CHECK_SECONDS, NODE_SECONDS, START_SECONDS, start
from hiso_ray.execution.cluster.memory_kills import GOES_ON, Casualties
from hiso_ray.execution.cluster.patience import Patience
from hiso_ray.execution.cluster.pieces import Call, Piece, Sent
from hiso_ray.execution.cluster.reservation import Reservation
from hiso_ray.execution.cluster.shared import Shared
from hiso_ray.execution.history import History
from hiso_ray.messages import Missed
from hiso_ray.run_folder.actor_times import ActorTimes
from hiso_ray.run_folder.faults import Faults


class Fleet:
    """All client actors of a run.

    Attributes:
        description: what every member computes with.
        message_bytes: serialized messages and answers so far.
        times: of the members' turns.
    """

    def __init__(
        self,
        experiment: Experiment,
        reservation: Reservation,
        shared: Shared,
        faults: Faults,
        actor_class: type = ClientActor,
    ) -> None:
        self.message_bytes, self.times = 0, ActorTimes()
        self._reservation, self._checked_at = reservation, 0.0
        method = experiment.method
        self._oracle_every = method.curvature_rounds * method.curvature_row.measures
        self._weights: tuple[int, ray.ObjectRef] | None = None  # (round, its x_r)
        self._tries = experiment.resources.tries
        self._faults, self._patience = faults, Patience(experiment.resources.answer_seconds)
        deaths = Deaths()
        self._members, self.description = start(
            experiment, reservation, shared, actor_class, deaths
        )
        self._casualties = Casualties(experiment, self._members, deaths)

    @property
    def present(self) -> list[int]:
        """Numbers of the members that can be asked now; all numbers if none can."""
        found = [n for n, member in enumerate(self._members) if member.present]
        return found or list(range(len(self._members)))

    def ask(self, history: History, pieces: Sequence[Piece]) -> dict[Any, Any]:
        """Sends pieces of work and collects the answers, even if members fail meanwhile.

        Returns:
            The result of each item of all pieces; for a piece without items, under None.

        Raises:
            TurnFailed: a piece failed ``resources.tries`` times.
            UserError: from a worker (a non-finite loss), or no member is left.
            NodesLost: nodes have left; the run should reserve again on the remaining ones.
        """
        call = Call(history, deque(pieces))
        self._casualties.mark()
        while call.waiting or call.pending:
            self._hand_out(call)
            self._wait(call)
        return call.answers

    def ask_one(self, history: History, method: str, *arguments: Any, of: int | None = None) -> Any:
        """Sends one message, to member ``of`` if it is free, and returns the result."""
        return self.ask(history, [Piece(method, None, arguments, of)])[None]

    def _hand_out(self, call: Call) -> None:
        if not call.waiting:
            return
        busy = {sent.number for sent in call.pending.values()}
        free = [n for n, m in enumerate(self._members) if m.present and n not in busy]
        for _ in range(len(call.waiting)):
            if not free:
                return
            piece = call.waiting.popleft()
            number = piece.prefers if piece.prefers in free else free[0]
            assert number is not None
            free.remove(number)
            self._send(call, piece, number)

    def _send(self, call: Call, piece: Piece, number: int) -> None:
        member = self._members[number]
        missed = call.history.missed(member.known, member.blind)
        weights = missed.weights if missed.weights is None else self._put(missed)
        message = pickle.dumps((replace(missed, weights=None), piece.method, piece.arguments))
        self.message_bytes += len(message)
        units = 1 + len(piece.members) + len(missed.records)
        now, every = time.monotonic(), self._oracle_every
        slow = every > 0 and missed.round // every != member.known // every
        allowed = self._patience.allowed(piece.method, units, slow)
        sent = Sent(piece, number, member.known, now, now + allowed, units, slow)
        call.pending[member.handle.call.remote(message, weights)] = sent

    def _put(self, missed: Missed) -> ray.ObjectRef:
        """Puts x_r into the object store once per round; a node that needs it fetches it once."""
        if self._weights is None or self._weights[0] != missed.round:
            assert missed.weights is not None
            self._weights = (missed.round, ray.put(missed.weights))
            self.message_bytes += missed.weights.nbytes
        return self._weights[1]

    def _wait(self, call: Call) -> None:
        """Waits for an answer, a failure, a deadline or a member's return, and handles it."""
        members = enumerate(self._members)
        back = {m.returning: n for n, m in members if m.returning is not None}
        if not call.pending and not back:
            raise self._nobody("every client actor is gone for good")
        wakes = [sent.deadline for sent in call.pending.values()]
        if back:
            self._check_absent(list(back.values()), alone=not call.pending)
            wakes.append(time.monotonic() + CHECK_SECONDS)
        seconds = max(0.0, min(wakes) - time.monotonic())
        refs = [*call.pending, *back]
        if ray.wait(refs, timeout=seconds)[0]:  # take all that is ready by now
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        else:
            ready = []
        for ref in ready:
            if ref in back:
                self._returned(back[ref], call.history.round)
            else:
                self._answered(call, ref, call.pending.pop(ref))
        now = time.monotonic()
        for ref in [ref for ref, sent in call.pending.items() if sent.deadline <= now]:
            self._hung(call, call.pending.pop(ref))

    def _check_absent(self, numbers: Sequence[int], alone: bool) -> None:
        """Limits how long the run waits for absent members.

        Raises:
            NodesLost: Ray has no place for some of them. Do not leave Ray searching: its control
                service then takes a whole core (ray-project/ray pull request 65007).
            UserError: no other member is working, and none came back in time, or all were killed
                for memory ``resources.tries`` times while starting.
        """
        now = time.monotonic()
        if now < self._checked_at + CHECK_SECONDS:
            return
        self._checked_at = now
        gone = [now - self._members[n].gone_at for n in numbers]
        if max(gone) > NODE_SECONDS and self._reservation.broken():
            raise NodesLost
        if not alone:
            return
        if self._casualties.again(numbers) or min(gone) > START_SECONDS:
            raise self._nobody(f"no client actor came back within {max(gone):.0f} s")

    def _nobody(self, words: str) -> UserError:
        return UserError(
            f"{self._casualties.first()}{words}; `hiso-ray resume` goes on once the cluster has "
            "room again"
        )

    def _answered(self, call: Call, ref: ray.ObjectRef, sent: Sent) -> None:
        member, piece = self._members[sent.number], sent.piece
        try:
            reply = ray.get(ref)
        except RayError as error:
            why = self._casualties.why(sent.number, piece.method, "died", str(error))
            member.go()
            self._failed(call, sent, *why)
            return
        self.message_bytes += len(reply)
        born, answer = pickle.loads(reply)
        if born != member.born:
            text = "it had died between two messages"
            why = self._casualties.why(sent.number, piece.method, "restarted", text)
            self._note(call, sent, *why)
            member.go()  # asks for its new identity before using it
            call.waiting.append(piece)
        elif isinstance(answer, Behind):
            assert answer.unreadable is not None or answer.round < sent.since, answer
            if answer.unreadable is not None:
                member.blind = True
                self._note(call, sent, "error", f"no snapshot: {answer.unreadable}")
            member.known = answer.round
            self._send(call, piece, sent.number)
        elif isinstance(answer, TurnFailed):
            member.restart()
            self._failed(call, sent, "error", str(answer))
        elif isinstance(answer, UserError):
            raise answer
        else:
            took = time.monotonic() - sent.at
            if not sent.slow:
                self._patience.learn(piece.method, sent.units, took)
            if piece.method == "turns":
                self.times.add(sent.number, len(piece.members), took)
            member.known = call.history.round
            results = [answer] if piece.items is None else answer
            call.answers |= zip(piece.items or (None,), results, strict=True)

    def _hung(self, call: Call, sent: Sent) -> None:
        self._members[sent.number].restart()
        waited = sent.deadline - sent.at
        self._failed(
            call,
            sent,
            "hung",
            f"no answer within {waited:.0f} s; if it was only slow, raise resources.answer_seconds",
        )

    def _failed(self, call: Call, sent: Sent, kind: str, error: str) -> None:
        piece = sent.piece
        self._note(call, sent, kind, error)
        piece.tries, piece.prefers = piece.tries + 1, None
        piece.memory = error if kind == "memory" else piece.memory
        if piece.tries == self._tries:
            first = "" if piece.memory is None else f"{piece.memory}\n"
            last = f", the last time like this:\n{error}" if kind != "memory" else f"; {GOES_ON}"
            raise TurnFailed(
                f"{first}{piece.whom}round {call.history.round}: {piece.method} failed "
                f"{piece.tries} times (resources.tries){last}"
            )
        alone = piece.items is None or len(piece.items) == 1
        call.waiting.extend([piece] if alone or piece.tries < 2 else piece.apart())

    def _note(self, call: Call, sent: Sent, kind: str, error: str) -> None:
        self._faults.add(
            kind, call.history.round, sent.piece.method, error, sent.number, sent.piece.members
        )

    def _returned(self, number: int, round_: int) -> None:
        error = self._members[number].come_back(self.description)
        if isinstance(error, OutOfMemoryError):
            error = self._casualties.remember(number, Killed.told(str(error)), "restart")
        else:
            self._casualties.forget(number)
        if error is not None:
            self._faults.add("lost", round_, "restart", str(error), number)
