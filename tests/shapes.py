"""Shapes in signatures, checked at every call as by ``jaxtyping.jaxtyped``, for a fraction of the time that it takes.

That binds the arguments of each call to their names, checks them, calls the function, and checks them once more, with
what is returned. :func:`jaxtyped` has beartype check the function itself, in the same context of sizes, and looks
at the arguments again only where a second look may find something else; what is no plain function is left to jaxtyping.
"""

import functools
import inspect
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jaxtyping
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import AbstractArray
from jaxtyping._decorator import _make_fn_with_signature
from jaxtyping._storage import pop_shape_memo, push_shape_memo, shape_str

theirs = jaxtyping.jaxtyped


def install(package):
    """Check every function of a package that is imported from now on, and every dataclass."""
    jaxtyping.jaxtyped = jaxtyped  # by this name the code that the hook adds calls it
    jaxtyping.install_import_hook(package, "beartype.beartype")


def jaxtyped(function=None, *, typechecker):
    """As ``jaxtyping.jaxtyped`` with beartype."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if is_inside_another(function) and function.__code__ in INSIDE:
        annotations, checking = INSIDE[function.__code__]
        if annotations == function.__annotations__:
            return checking(function)
    hints = hints_of(function)
    if hints is None or any("{" in sizes for sizes in map(sizes_in, hints.values())):  # a size that an argument says
        return theirs(function, typechecker=typechecker)
    if is_inside_another(function):
        checking = checking_of(function, hints)
        INSIDE[function.__code__] = function.__annotations__, checking
        return checking(function)
    checked = beartype(function)
    arguments_alone = [hint for name, hint in hints.items() if name != "return"]
    if "return" in hints and not all(map(is_seen_at_once, arguments_alone)):
        checked = looking_twice(function, checked, hints)
    wrapped = in_a_context if any(map(sizes_in, hints.values())) else without_a_context
    return wrapped(checked, function)


INSIDE = {}
"""Code of a function inside of another -> its annotations, and what makes it a function that is checked.

Such a function is made anew at each call of the other; its checks, which take a thousand times as long, are made once.
"""


def is_inside_another(function):
    return inspect.isfunction(function) and "<locals>" in function.__qualname__


def hints_of(function):
    """The annotations of a plain function; None for all else, and where one names what is not there yet."""
    lazy = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if not inspect.isfunction(function) or any(is_one(function) for is_one in lazy):
        return None
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # jaxtyping, too, takes whatever an annotation raises
        return None


def in_a_context(checked, function):
    """A function in whose calls one name means one size."""

    @functools.wraps(function)
    def call(*arguments, **named):
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:  # for a test, as users run it
            return function(*arguments, **named)
        sizes = push_shape_memo({})
        try:
            return checked(*arguments, **named)
        except BeartypeCallHintViolation as error:
            error.add_note(shape_str(sizes))
            raise
        finally:
            pop_shape_memo()

    return call


def without_a_context(checked, function):
    """A function that names no size."""

    @functools.wraps(function)
    def call(*arguments, **named):
        __tracebackhide__ = True
        return (function if jaxtyping.config.jaxtyping_disable else checked)(*arguments, **named)

    return call


def looking_twice(function, checked, hints):
    """A function whose arguments are checked after the call, too, as jaxtyping does."""
    look = looks_of(function, hints)[0]

    @functools.wraps(function)
    def call(*arguments, **named):
        __tracebackhide__ = True
        returned = checked(*arguments, **named)
        look(*arguments, **named)
        return returned

    return call


def checking_of(function, hints):
    """What makes a function with these hints a checked one, as jaxtyping does."""
    if not hints:
        return lambda unchecked: unchecked
    look, look_at_all, name = looks_of(function, hints)

    def checking(unchecked):
        @functools.wraps(unchecked)
        def call(*arguments, **named):
            __tracebackhide__ = True
            look(*arguments, **named)
            returned = unchecked(*arguments, **named)
            look_at_all(*arguments, **named, **{name: returned})
            return returned

        return in_a_context(call, unchecked) if any(map(sizes_in, hints.values())) else call

    return checking


def looks_of(function, hints):
    """Functions that check the arguments, and these with what is returned, and the name of that argument."""
    signature = inspect.signature(function)
    parameters = [each.replace(annotation=hints.get(name, Any)) for name, each in signature.parameters.items()]
    names = (function.__name__, function.__qualname__, function.__module__)
    alone, whole = (inspect.Signature(parameters, return_annotation=r) for r in (Any, hints.get("return", Any)))
    look_at_all, name = _make_fn_with_signature(*names, whole, output=True)
    return beartype(_make_fn_with_signature(*names, alone, output=False)), beartype(look_at_all), name


def is_seen_at_once(hint):
    """Whether one look at an argument says all: it is of a class, or of one of several.

    Of a container a look sees one item, at the next perhaps another, and the call may have put something else there.
    """
    if get_origin(hint) in (Union, UnionType):
        return all(map(is_seen_at_once, get_args(hint)))
    return (
        hint is Any or get_origin(hint) in (Literal, Callable) or (get_origin(hint) is None and inspect.isclass(hint))
    )


def sizes_in(hint):
    """What the shapes in an annotation say, one after the other; empty without an array."""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return f"({hint.dim_str})"
    # the parameters of a Callable are a list
    return "".join(map(sizes_in, hint if isinstance(hint, list) else get_args(hint)))
