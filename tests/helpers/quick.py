"""jit for tests of numerics, which compile for far longer than they run, and the linear recurrence step by step."""

import functools

import jax
import jax.numpy as jnp

# Half the time to compile. XLA's own names, which may change between versions.
OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@functools.cache
def known_options():
    """The OPTIONS that this version of XLA knows."""
    known = {}
    for name, value in OPTIONS.items():
        try:
            jax.jit(lambda x: x, compiler_options={name: value})(jnp.zeros(()))
        except Exception as error:
            if "option" not in str(error):
                raise
        else:
            known[name] = value
    return known


def compiled(function, **options):
    """jax.jit with as little work for the compiler as possible."""
    return jax.jit(function, compiler_options=known_options(), **options)


def solve_in_order(a, b, start):
    """s_t = a_t * s_{t-1} + b_t, one step after the other. a, b: [T, B, H]; start: [B, H]. Returns s [T, B, H]."""

    def body(s, coefficients):
        s = coefficients[0] * s + coefficients[1]
        return s, s

    return jax.lax.scan(body, start, (a, b))[1]
