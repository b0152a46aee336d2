"""The floor: times the matrix products that a workload requires, at their own shapes, and nothing else.

Gates, softmax, updates and loading are left out, so an implementation with equally fast products takes longer.
Embeddings and one-hot inputs are not counted: they read rows of a table, without a product. All labelled sequences
have the mean length, so nothing is padded.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.peers.workload import GATES, Program, Workload
from lm.model.losses import CHUNK_LOGITS
from lm.scoring.protocols import EXACT_UNROLL


class Product(NamedTuple):
    """[m, k] x [k, n], `times` times in sequence: each product depends on the previous one."""

    m: int
    k: int
    n: int
    times: int = 1


class Softmax(NamedTuple):
    """The products of a softmax: logits, gradient of the features and gradient of the kernel [H, V], all three for one
    chunk of `rows` features [rows, H] at a time."""

    rows: int
    units: int
    symbols: int
    chunks: int


def products(workload: Workload) -> tuple[Sequence[Product | Softmax], int]:
    """Returns (the products of one training step, window or text; how many times a unit of work repeats them)."""
    if workload.kind == "train" or workload.labelled:
        return _training(workload), 1
    if workload.kind == "evaluate":
        return _forward(workload, min(EXACT_UNROLL, workload.length), 1), -(-workload.length // EXACT_UNROLL)
    # Each character depends on the previous one, so characters cannot share a product.
    return [p._replace(times=workload.length - 1) for p in _forward(workload, 1, workload.batch)], 1


def _forward(workload: Workload, steps: int, batch: int) -> list[Product]:
    found = []
    for index, (inputs, units) in enumerate(zip(workload.inputs, workload.hidden, strict=True)):
        width = GATES[workload.cell] * units
        if index or workload.embedding:
            found.append(Product(steps * batch, inputs, width))
        found.append(Product(batch, units, width, steps))
    return [*found, Product(steps * batch, workload.hidden[-1], workload.vocabulary)]


def _training(workload: Workload) -> list[Product | Softmax]:
    steps, batch = workload.unroll, workload.batch
    rows, found = steps * batch, []
    for index, (inputs, units) in enumerate(zip(workload.inputs, workload.hidden, strict=True)):
        width = GATES[workload.cell] * units
        if index or workload.embedding:
            found += [
                Product(rows, inputs, width),  # x W_x
                Product(rows, width, inputs),  # dz W_x^T
                Product(inputs, rows, width),  # x^T dz
            ]
        found += [
            Product(batch, units, width, steps),  # h W_h
            Product(batch, width, units, steps),  # dz W_h^T
            Product(units, rows, width),  # h^T dz
        ]
    targets = batch if workload.labelled else rows
    chunks = max(1, -(-targets * workload.outputs // CHUNK_LOGITS))
    return [*found, Softmax(-(-targets // chunks), workload.hidden[-1], workload.outputs, chunks)]


def operands(product: Product | Softmax) -> tuple:
    """Left and right operands for `multiply`. Each result feeds the next left operand: an identity in the right operand
    keeps the values from growing or vanishing, which could change the speed."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.uniform(-0.001, 0.001, shape).astype(np.float32)

    if isinstance(product, Softmax):
        features = draw(product.chunks, product.rows, product.units)
        return jnp.asarray(features), jnp.asarray(draw(product.units, product.symbols))
    m, k, n, times = product
    right = draw(k, n)
    if times > 1:
        shared = min(k, n)
        right[:shared, :shared] = np.eye(shared)
    return jnp.asarray(draw(m, k)), jnp.asarray(right)


def multiply(product: Product | Softmax, left, right):
    """Computes the products. The result depends on all of them, so that the compiler removes none."""
    if isinstance(product, Softmax):
        return _multiply_softmax(left, right)
    result = left @ right
    _, k, n, times = product
    if times == 1:
        return result
    if k <= n:  # keep the full result, or XLA computes only the slice that is read
        return jax.lax.fori_loop(1, times, lambda _, y: y[:, :k] @ right, result)
    left = left.at[:, :n].set(result)
    return jax.lax.fori_loop(1, times, lambda _, x: x.at[:, :n].set(x @ right), left)


def _multiply_softmax(features, kernel):
    """features [chunks, rows, H], kernel [H, V]. The kernel's gradient overwrites that of the previous chunk."""

    def chunk(_, rows):
        logits = rows @ kernel
        return rows.T @ logits, logits @ kernel.T

    if features.shape[0] == 1:
        return chunk(None, features[0])
    return jax.lax.scan(chunk, jnp.zeros_like(kernel), features)


def build(workload: Workload) -> Program:
    """A program that computes, for each unit of work, all products that the workload needs."""
    needed, repeats = products(workload)
    arguments = [operands(product) for product in needed]

    @jax.jit
    def multiply_all(arguments):
        return [multiply(product, *pair) for product, pair in zip(needed, arguments, strict=True)]

    def run(n: int) -> float:
        for _ in range(n * repeats):
            results = multiply_all(arguments)
        jax.block_until_ready(results)
        return float("nan")

    return Program(run)
