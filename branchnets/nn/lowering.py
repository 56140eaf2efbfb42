"""One bilinear operation, written for each platform in the form that is fast there.

The form is picked for the platform that a program is compiled for, not the one it is traced on, so
that one trace serves a CPU, a TPU that is not here, and an export for several platforms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
from jax import Array, lax

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Form(NamedTuple):
    """A way to compute f(x, w), linear in each of the two.

    Attributes:
      result: also differentiated for the gradient of x.
      other: a form of the same f that is differentiated for the gradient of w.
    """

    result: Callable[[Array, Array], Array]
    other: Callable[[Array, Array], Array]


def bilinear(x: Array, w: Array, forms: Mapping[str, Form]) -> Array:
    """f(x, w) in the form of the platform that the program is compiled for.

    Where platforms take different forms, only reverse-mode differentiation is offered, and x and w
    are all that is kept for it: a differentiated conditional would keep what every one of its
    branches needs.

    Args:
      x: first operand.
      w: second operand.
      forms: platform -> form, of all :data:`PLATFORMS`; equal forms are traced once.
    """
    distinct = set(forms.values())
    if len(distinct) == 1:
        (form,) = distinct
        if form.result is form.other:
            return form.result(x, w)
    return _per_platform(x, w, tuple(forms.items()))


_Forms = tuple[tuple[str, Form], ...]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _per_platform(x: Array, w: Array, forms: _Forms) -> Array:
    return _select(forms, lambda form: form.result, x, w)


def _forward(x: Array, w: Array, forms: _Forms) -> tuple[Array, tuple[Array, Array]]:
    return _per_platform(x, w, forms), (x, w)


def _backward(forms: _Forms, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    def gradient(form: Form) -> Callable[..., tuple[Array, Array]]:
        # Bilinear, so that neither gradient needs a forward result: what `vjp` computes of it is
        # dropped as dead code.
        return lambda x, w, dy: (
            *jax.vjp(lambda a: form.result(a, w), x)[1](dy),
            *jax.vjp(lambda b: form.other(x, b), w)[1](dy),
        )

    return _select(forms, gradient, *kept, dy)


_per_platform.defvjp(_forward, _backward)


def _select(forms: _Forms, make: Callable[[Form], Callable], *operands: Array):
    # One branch per distinct form, so that equal ones are traced once; others run the default.
    named = dict(forms)
    default = named.pop("tpu")
    branches = {p: make(form) for p, form in named.items() if form != default}
    return lax.platform_dependent(*operands, default=make(default), **branches)
