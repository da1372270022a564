"""Ctrl-C that is never lost.

Python raises ``KeyboardInterrupt`` wherever the program happens to be. Inside a callback of the garbage collector (JAX
has one) it is printed with a traceback and forgotten, and the run would go on; so it is remembered instead, and
looked at before each part.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_pressed = threading.Event()


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Remember an interrupt that arrives meanwhile; it also raises ``KeyboardInterrupt``, as always."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        _pressed.set()
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return

    def on_lost_exception(lost: UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            report_lost(lost)

    _pressed.clear()
    before, report_lost = signal.signal(signal.SIGINT, on_signal), sys.unraisablehook
    sys.unraisablehook = on_lost_exception
    try:
        yield
    finally:
        sys.unraisablehook = report_lost
        signal.signal(signal.SIGINT, before)
        _pressed.clear()


def raise_if_pressed() -> None:
    """Raise ``KeyboardInterrupt`` if one has arrived and was lost."""
    if _pressed.is_set():
        raise KeyboardInterrupt
