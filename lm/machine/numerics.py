"""Fixes the JAX settings that change results or make JAX reject this project's or optax's programs.

Without this, a variable such as JAX_DEFAULT_PRNG_IMPL=rbg could change results without changing the run's identity.
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
    """Sets SETTINGS. Overrides environment variables."""
    import jax  # here, so that command-line errors are reported without waiting for this import

    for name, value in SETTINGS.items():
        jax.config.update(name, value)


def other_settings() -> str:
    """The settings of JAX that differ from SETTINGS, such as "jax_enable_x64=True"; "" if none does."""
    import jax

    return ", ".join(
        f"{name}={now}" for name, fixed in SETTINGS.items() if (now := getattr(jax.config, name)) not in (None, fixed)
    )
