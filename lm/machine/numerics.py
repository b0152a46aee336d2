"""The settings of JAX that decide numbers, or stop programs that optax or this project need; the same for every run.

The environment can set others, such as JAX_DEFAULT_PRNG_IMPL=rbg; a run's identity would not show it.
"""

SETTINGS = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_transfer_guard": "allow",
}


def fix_numerics() -> None:
    """Sets SETTINGS, whatever the environment says."""
    import jax  # here: an error on the command line is reported without this import

    for name, value in SETTINGS.items():
        jax.config.update(name, value)
