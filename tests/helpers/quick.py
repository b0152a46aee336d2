"""`compiled`: jit for tests of numerics, where compiling takes far longer than running."""

import functools

import jax
import jax.numpy as jnp

# Half the time to compile. XLA's own names, which may change between versions.
OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@functools.cache
def known_options():
    """OPTIONS as far as this version of XLA has them."""
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
    """jax.jit, with the least work in the compiler."""
    return jax.jit(function, compiler_options=known_options(), **options)
