"""Python loops shared by the JAX peers: one jitted call per training step, window or character."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.peers.workload import Program, Workload, draw_text, mean_nats, windows


def training(workload: Workload, step: Callable, start: tuple) -> Program:
    """Trains with step(state, carries, window [T + 1, B]) -> (state, carries, mean nats). start: (state, carries)."""
    batches = windows(workload, draw_text(workload))
    state, carries = start
    done = 0

    def run(n: int) -> float:
        nonlocal state, carries, done
        for _ in range(n):
            state, carries, nats = step(state, carries, batches[done % len(batches)])
            done += 1
        return float(jax.block_until_ready((state, nats))[1])

    return Program(run)


def forward(workload: Workload, apply: Callable, parameters, zero_carries: Callable) -> Program:
    """Evaluates or samples with apply(parameters, tokens [T, B], carries) -> (carries, logits [T, B, V])."""
    batches = windows(workload, draw_text(workload))

    @jax.jit
    def score(parameters, window, carries):
        carries, logits = apply(parameters, window[:-1], carries)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), window[1:, :, None], axis=-1)
        return carries, -picked[..., 0]

    if workload.kind == "evaluate":

        def run(n: int) -> float:
            for _ in range(n):
                carries, parts = zero_carries(1), []
                for window in batches:
                    carries, nats = score(parameters, window, carries)
                    parts.append(nats)
                mean = mean_nats(parts, workload)
            return mean

        return Program(run)

    @jax.jit
    def draw(parameters, tokens, carries, key):
        key, own = jax.random.split(key)
        carries, logits = apply(parameters, tokens[None], carries)
        return jax.random.categorical(own, logits[0]), carries, key

    key = jax.random.key(0)

    def run_sampling(n: int) -> float:
        nonlocal key
        for _ in range(n):
            tokens, carries = jnp.asarray(batches[0, 0]), zero_carries(workload.batch)
            texts = [tokens]
            for _ in range(workload.length - 1):
                tokens, carries, key = draw(parameters, tokens, carries, key)
                texts.append(tokens)
            jax.device_get(texts)
        return float("nan")

    return Program(run_sampling, lambda: float(score(parameters, batches[0], zero_carries(workload.batch))[1].mean()))
