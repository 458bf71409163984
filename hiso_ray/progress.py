"""Long steps say how far they are to whoever listens: a command line with a terminal does.

A step names itself where its work is done, so nothing has to be passed down to it. Processes of a
cluster have no listener.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int | None], AbstractContextManager[Callable[[], None]]]
"""Given what is done and of how many parts it consists (None: not known), a context that lasts as
long as the step and yields what to call after each part."""


def _nobody(what: str, total: int | None) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


_LISTENER: ContextVar[Listener] = ContextVar("listener", default=_nobody)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tells ``listener`` of the steps in this context."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


@contextmanager
def step(what: str) -> Iterator[None]:
    """A step of unknown length."""
    with _LISTENER.get()(what, None):
        yield


def parts(what: str, items: Collection[T]) -> Iterator[T]:
    """The items, each of which is a part of a step."""
    return counted(what, items, len(items))


def counted(what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """As :func:`parts`, of items that do not know their number."""
    with _LISTENER.get()(what, total) as one_done:
        for item in items:
            yield item
            one_done()
