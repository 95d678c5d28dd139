"""What all checks share: a verdict in a sentence, a call that always comes back, a comparison.

A reader's function may be the stub, return nothing or the wrong thing, raise, or never end. Each of
these becomes a `NotYet` with a sentence that says what to look at.
"""

from __future__ import annotations

import ctypes
import inspect
import linecache
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

TIME_LIMIT_S = 20.0  # of one call; a right answer takes milliseconds

_passed: list[Callable] = []


class NotYet(AssertionError):
    """An exercise is not solved yet; the message says what to look at."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message, not the insides of this file."""
        return [f"Not yet: {self}"]


def passed(function: Callable) -> bool:
    """Whether this very function has passed its check; one that was edited has to pass again."""
    return any(function is other for other in _passed)


def accept(function: Callable, what: str) -> None:
    """Remember that the function has passed, and say so."""
    _passed.append(function)
    print(f"Passed: {what}.")


def call(function: Callable, *arguments: Any) -> Any:
    """The result of the reader's function.

    Raises:
        NotYet: it is no function, still the stub, raised something, did not end within
            TIME_LIMIT_S, or changed a tensor that it was given.
    """
    if not callable(function):
        raise NotYet(
            f"got a {type(function).__name__}; expected the function itself, without parentheses "
            "behind its name"
        )
    name = getattr(function, "__name__", "the function")
    before = [tensor.clone() for _, tensor in _tensors(function, arguments)]
    outcome = _run(function, arguments, name)
    error = outcome.get("error")
    if isinstance(error, NotImplementedError):
        raise NotYet(
            f"{name} is still the stub. Replace `raise NotImplementedError`; "
            "the first hint says how to begin"
        ) from None
    if error is not None:
        raise NotYet(
            f"{name} raised {type(error).__name__}: {str(error) or 'no message'}"
            f"{_place(function, error)}"
        ) from error
    for (argument, now), then in zip(_tensors(function, arguments), before, strict=False):
        if now.shape != then.shape or not torch.equal(now, then):
            raise NotYet(
                f"{name} changed its argument {argument!r}, which its caller still needs. `x += y` "
                "and `x[...] = y` write in place; say `x = x + y`, or work on x.clone()"
            )
    return outcome["result"]


def compare(
    got: Any,
    expected: Tensor,
    what: str,
    axes: str = "",
    mistakes: Mapping[str, Tensor] | None = None,
    atol: float = 1e-5,
) -> None:
    """Raise a NotYet unless `got` is `expected`.

    Args:
        got: what the reader's function returned.
        expected: what is right.
        what: how a message names it: "the codes".
        axes: how a message names its shape: "[K, N]".
        mistakes: sentence -> what a reader with this mistake in mind would return.
        atol: of floats; integers and bools must be equal.
    """
    if got is None:
        raise NotYet(f"{what}: got None. Does the function end with `return ...`?")
    if not isinstance(got, Tensor):
        raise NotYet(
            f"{what}: got a {type(got).__name__}; expected a torch.Tensor "
            f"{axes or list(expected.shape)}"
        )
    explain(got, expected, mistakes or {}, atol)
    if got.shape != expected.shape:
        raise NotYet(
            f"{what}: got the shape {list(got.shape)}; expected {list(expected.shape)}"
            f"{', ' + axes if axes else ''}"
        )
    if _kind(got) != _kind(expected):
        raise NotYet(
            f"{what}: got {got.dtype}; expected {_kind(expected)} such as {expected.dtype}"
        )
    if not same(got, expected, atol):
        far = _distance(got, expected)
        where = [int(i) for i in torch.unravel_index(far.argmax(), far.shape)]
        raise NotYet(
            f"{what}: {int((far > atol).sum())} of {far.numel()} differ, most at {where}: got "
            f"{_value(got[tuple(where)])}, expected {_value(expected[tuple(where)])}"
        )


def explain(
    got: Tensor, expected: Tensor, mistakes: Mapping[str, Tensor], atol: float = 1e-5
) -> None:
    """Raise a NotYet with the sentence of the known mistake that `got` comes from, if any."""
    for sentence, wrong in mistakes.items():
        if same(got, wrong, atol) and not same(wrong, expected, atol):
            raise NotYet(sentence)


def same(a: Tensor, b: Tensor, atol: float = 1e-5) -> bool:
    """Whether two tensors agree in shape, kind and values."""
    if a.shape != b.shape or _kind(a) != _kind(b):
        return False
    return not bool((_distance(a, b) > atol).any())


# --- helpers -----------------------------------------------------------------------------------


def _run(function: Callable, arguments: tuple, name: str) -> dict[str, Any]:
    """Call in a thread of its own, which can be left, and ended, when it takes too long."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["result"] = function(*arguments)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(TIME_LIMIT_S)
    finally:  # also when the reader presses "interrupt"
        if thread.is_alive():
            ident = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
    if not outcome:
        raise NotYet(
            f"{name} was still running after {TIME_LIMIT_S:g} s, where milliseconds are enough: "
            "does a `while` loop change what it waits for?"
        )
    return outcome


def _tensors(function: Callable, arguments: tuple) -> list[tuple[str, Tensor]]:
    """(name of the argument, tensor) of every tensor among the arguments, and in lists of them."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    found = []
    for i, argument in enumerate(arguments):
        name = names[i] if i < len(names) else f"number {i + 1}"
        found += [(name, tensor) for tensor in _flat(argument)]
    return found


def _flat(thing: Any) -> list[Tensor]:
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, torch.nn.Embedding):
        return [thing.weight.detach()]
    if isinstance(thing, np.ndarray) and thing.dtype.kind in "fi":
        return [torch.from_numpy(thing)]  # shares the array's memory
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, list | tuple):
        return [tensor for item in thing for tensor in _flat(item)]
    return []


def _place(function: Callable, error: BaseException) -> str:
    """Where in the reader's own lines an exception came up."""
    code = getattr(function, "__code__", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if code is not None and frame.filename == code.co_filename:
            number = (frame.lineno or 1) - code.co_firstlineno + 1
            text = linecache.getline(frame.filename, frame.lineno or 1).strip()
            return f", in its line {number}" + (f": `{text}`" if text else "")
    return ""


def _kind(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "bools"
    return "floats" if tensor.is_floating_point() or tensor.is_complex() else "whole numbers"


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """How far apart; NaN counts as infinitely far."""
    far = (a.detach().double() - b.detach().double()).abs().nan_to_num(torch.inf)
    return far.masked_fill((a == b).detach(), 0.0)  # infinities that agree


def _value(item: Tensor) -> str:
    return f"{item.item():.4g}" if item.is_floating_point() else f"{item.item()}"
