"""The benchmark: all libraries run the same model, the floor counts its products, and times give the record.

No test asserts a speed.
"""

import importlib.util
import itertools
import json
import statistics
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs.benchmark
import launch
from configs import loading
from configs.base import base
from configs.imdb import article
from experiments import benchmark, benchmark_lanes
from experiments.peers import floor, ours, sequences, worker
from experiments.peers.floor import Product, Softmax
from experiments.peers.workload import WORKLOADS, Workload, draw_text, windows
from lm.errors import UserError
from lm.machine.processes import Child

TINY = Workload("tiny", "train", "lstm", 5, (4, 3), 11, 3, 4, weighting="sum_over_time", learning_rate=0.5, clip=1.0)
SMALLEST = TINY._replace(embedding=0, hidden=(4,))

# --- The same model in every library --------------------------------------------------------------------------------


@pytest.fixture
def lenient():
    """Other libraries promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


LABELLED = Workload(
    "labelled", "classify", "lstm", 5, (4,), 11, 4, 6, learning_rate=0.01, length=12, buckets=3, sequences=40
)


def losses(name: str, workload: Workload) -> list[float]:
    """The losses that worker.start compares. Skips the test if the library is not installed."""
    implementation = worker.IMPLEMENTATIONS[name]
    if importlib.util.find_spec(implementation.package) is None:  # importing keras here would choose its backend
        pytest.skip(f"{implementation.package} is not installed")
    module = importlib.import_module(f"experiments.peers.{implementation.module}")
    program = module.build(workload, **({"config": base()} if name == "lm" else {}))
    first = [program.run(1) for _ in range(worker.FIRST_UNITS[workload.kind])]
    return first if program.first_nats is None else [program.first_nats()]


@pytest.fixture(scope="module")
def our_losses():
    """A function that gives our losses for a workload, computed once each."""
    made = {}

    def get(workload: Workload) -> list[float]:
        if workload not in made:
            made[workload] = losses("lm", workload)
        return made[workload]

    return get


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    ("peer", "workload"),
    [
        *((peer, TINY) for peer in ("flax", "torch", "keras", "haiku")),
        *((peer, SMALLEST._replace(cell="gru")) for peer in ("flax", "torch", "keras")),
        *((peer, SMALLEST._replace(cell="elman")) for peer in ("flax", "torch", "keras")),
        *((peer, SMALLEST._replace(kind="evaluate", batch=1, length=10)) for peer in ("flax", "torch", "keras")),
        *((peer, SMALLEST._replace(kind="sample", length=6)) for peer in ("torch", "haiku")),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.kind}-{value.cell}",
)
def test_every_library_gives_our_losses(peer, workload, our_losses):
    """Training compares three steps, so that gradient, clipping and update must agree too."""
    wanted = our_losses(workload)
    found = losses(peer, workload)
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    # torch and keras' GRU have a second bias: the sum of both moves twice as far.
    exact = (peer, workload.cell) in {("flax", "lstm"), ("flax", "gru"), ("flax", "elman"), ("haiku", "lstm")}
    assert found == pytest.approx(wanted, rel=1e-5 if exact else 1e-2)
    assert abs(wanted[0] - np.log(workload.vocabulary)) < 0.1  # small weights: nearly uniform predictions


@pytest.mark.filterwarnings("ignore")
def test_dropout_is_on_in_training():
    [plain, dropped] = (losses("torch", TINY._replace(keep_prob=keep)) for keep in (1.0, 0.5))
    assert dropped[0] != pytest.approx(plain[0], rel=1e-6)
    assert dropped[0] == pytest.approx(plain[0], rel=benchmark.DROPOUT_TOLERANCE)


def test_haikus_other_cells_are_refused():
    pytest.importorskip("haiku", reason="dm-haiku is not installed")
    from experiments.peers import haiku_peer

    with pytest.raises(UserError, match="differs from the other libraries"):
        haiku_peer.build(SMALLEST._replace(cell="gru"))


def test_torch_compile_is_refused_outside_training():
    pytest.importorskip("torch", reason="torch is not installed")
    from experiments.peers import torch_peer

    with pytest.raises(UserError, match=r"torch\.compile does not compile nn\.LSTM"):
        torch_peer.build(SMALLEST._replace(kind="sample", length=6), compiled=True)


def test_windows_overlap_by_one_token():
    text = np.arange(10)
    cut = windows(SMALLEST._replace(kind="evaluate", batch=1, length=9), text)
    assert cut[:, :, 0].tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 0, 0, 0]]
    assert windows(TINY, draw_text(TINY)).shape == (40, 5, 3)


@pytest.mark.parametrize(
    ("name", "module", "arguments"),
    [
        ("text8_train", "configs.text8.lstm_fused", ()),
        ("ptb_train", "configs.ptb.lstm2", ()),
        ("zaremba_small_train", "configs.ptb.zaremba", ("small",)),
        ("zaremba_medium_train", "configs.ptb.zaremba", ("medium",)),
    ],
)
def test_workloads_have_the_sizes_of_the_committed_configs(name, module, arguments):
    committed = importlib.import_module(module).get_config(*arguments)
    [workload] = WORKLOADS[name]
    made = ours.experiment_config(workload, base())
    assert made.model.to_dict() == committed.model.to_dict()
    assert made.keep_prob.to_dict() == committed.keep_prob.to_dict()
    keys = ["data.batch_size", "data.unroll", "loss.weighting"]
    keys += [f"optim.{key}" for key in ("name", "learning_rate", "clipping", "clip")]
    for key in keys:
        group, leaf = key.split(".")
        assert made[group][leaf] == committed[group][leaf], key


# --- Labelled sequences ---------------------------------------------------------------------------------------------


def started(name: str, **more) -> tuple[worker.Started, dict]:
    request = {"implementation": name, "workload": LABELLED._asdict(), "threads": benchmark.available()}
    return worker.start(request | {"config": base().to_dict()} | more)


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("peer", ["keras", "keras_sorted", "torch", "torch_sorted"])
def test_every_library_gives_our_losses_of_the_same_labelled_sequences(peer):
    if importlib.util.find_spec(worker.IMPLEMENTATIONS[peer].package) is None:
        pytest.skip("not installed")
    ours_started, wanted = started("lm")
    _, found = started(peer, batches=wanted["batches"])
    assert found["nats"] == pytest.approx(wanted["nats"], rel=1e-3)
    assert len({*wanted["nats"]}) == 3
    assert benchmark.explain_mismatch(LABELLED, found["nats"], wanted["nats"]) == ""
    lengths = sequences.kept_lengths(LABELLED)
    batches = ours_started.program.batches
    assert ours_started.measure(0.0)["tokens"] == lengths[batches(3)].sum()
    assert ours_started.measure(0.0)["tokens"] == lengths[batches(4)].sum()


def test_lengths_are_distributed_as_those_of_imdb():
    [workload] = WORKLOADS["imdb_train"]
    lengths = sequences.draw_lengths(workload)
    assert lengths.mean() == pytest.approx(238, abs=0.1)
    assert np.mean(lengths <= 500) == pytest.approx(0.916, abs=0.0005)
    assert sequences.kept_lengths(workload).mean() == pytest.approx(workload.unroll, abs=0.5)
    assert (sequences.draw_lengths(workload) == lengths).all()


@pytest.mark.parametrize("order", ["random", "sorted"])
def test_a_peer_reads_the_given_batches_and_then_whole_epochs(order):
    batches = sequences.peer_batches(LABELLED, [[3, 1]], order)
    assert batches(0).tolist() == [3, 1]
    epochs = [np.concatenate([batches(1 + 10 * epoch + step) for step in range(10)]) for epoch in range(2)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    lengths = sequences.kept_lengths(LABELLED)[epochs[0]].reshape(10, 4)
    spans = sorted((row.min(), row.max()) for row in lengths)
    overlaps = sum(before[1] > after[0] for before, after in itertools.pairwise(spans))
    assert (overlaps == 0) == (order == "sorted")


def test_a_padded_batch_by_hand():
    tokens, starts, labels = sequences.draw_sequences(LABELLED)
    lengths = sequences.kept_lengths(LABELLED)
    short, long = int(lengths.argmin()), int(lengths.argmax())
    assert lengths[short] < 8 < lengths[long] == 12
    made = sequences.pad(LABELLED, np.array([long, short]))
    assert made.tokens[0].tolist() == tokens[starts[long] : starts[long] + 12].tolist()
    padding = [0] * (12 - lengths[short])
    assert made.tokens[1].tolist() == tokens[starts[short] : starts[short + 1]].tolist() + padding
    assert made.lengths.tolist() == [12, lengths[short]]
    assert made.labels.tolist() == labels[[long, short]].tolist()
    assert sequences.pad(LABELLED, np.array([short]), multiple=8).tokens.shape == (1, 8)
    assert tokens.min() == 1


def test_labelled_workloads_have_the_sizes_of_the_committed_config():
    [workload] = WORKLOADS["imdb_train"]
    made, committed = ours.experiment_config(workload, base()), article.get_config()
    assert made.model.to_dict() == committed.model.to_dict()
    for key in ("data.batch_size", "data.max_tokens", "optim.name", "optim.learning_rate", "optim.clipping"):
        group, leaf = key.split(".")
        assert made[group][leaf] == committed[group][leaf], key
    assert workload.vocabulary == committed.data.max_vocabulary


def test_each_kind_of_work_has_its_own_implementations():
    peers = tuple(config().peers)

    def compared(name):
        return benchmark.compared_peers(WORKLOADS[name][0], peers)

    assert compared("ptb_train") == ("flax", "torch", "torch_compile", "keras", "haiku")
    assert compared("imdb_train") == ("torch", "keras", "torch_sorted", "keras_sorted")
    assert compared("imdb_padding") == ("lm_padded", "lm_single")
    assert compared("cost_batch") == ("flax", "torch")


# --- The floor ------------------------------------------------------------------------------------------------------


def flops(name: str) -> int:
    found, repeats = floor.products(WORKLOADS[name][0])
    return repeats * sum(flops_of(product) for product in found)


def flops_of(product: Product | Softmax) -> int:
    if isinstance(product, Softmax):  # logits and two gradients
        return 3 * 2 * product.rows * product.units * product.symbols * product.chunks
    return 2 * product.m * product.k * product.n * product.times


def test_the_floor_counts_by_hand():
    # text8: h W_h, dz W_h^T and h^T dz of 640 rows; logits and their two gradients; one-hot input costs no product
    assert flops("text8_train") == 2 * 640 * (3 * 64 * 256 + 3 * 64 * 27)
    # PTB: five chunks of 240 rows; both layers have an input product with two gradients
    layers = (200 + 256) * 1024 + (256 + 128) * 512
    assert flops("ptb_train") == 2 * 1200 * 3 * (layers + 128 * 10_000)
    # 161 windows of 512 hold 82,429 targets; forward only
    assert flops("ptb_evaluate") == 2 * 161 * 512 * (layers + 128 * 10_000)
    # the first character of a text is drawn, not computed
    assert flops("text8_sample") == 2 * 999 * 64 * (64 * 256 + 64 * 27)
    assert floor.products(WORKLOADS["ptb_train"][0])[0][-1] == Softmax(240, 128, 10_000, 5)
    # 64 sequences of the mean length, with one output each
    assert flops("imdb_train") == 2 * 3 * (64 * 218 * (32 + 100) * 400 + 64 * 100)


@pytest.mark.parametrize("product", [Product(2, 3, 5), Product(2, 3, 5, 4), Product(2, 5, 3, 4)])
def test_a_sequence_of_products_is_computed_one_by_one(product):
    left, right = (np.asarray(x, np.float64) for x in floor.operands(product))
    result, x = floor.multiply(product, *map(jnp.asarray, (left, right))), left.copy()
    for _ in range(product.times):
        y = x @ right
        x[:, : min(product.k, product.n)] = y[:, : product.k]
    np.testing.assert_allclose(result, y if product.k <= product.n else x, rtol=1e-4)


@pytest.mark.parametrize("chunks", [1, 3])
def test_the_softmax_products_are_computed_chunk_by_chunk(chunks):
    features, kernel = floor.operands(Softmax(4, 3, 7, chunks))
    d_kernel, d_features = floor.multiply(Softmax(4, 3, 7, chunks), features, kernel)
    logits = features @ kernel
    np.testing.assert_allclose(d_kernel, features[-1].T @ logits[-1], rtol=1e-4)
    np.testing.assert_allclose(d_features.reshape(features.shape), logits @ kernel.T, rtol=1e-4)


# --- From the command line to the record ----------------------------------------------------------------------------


def config(**changes):
    made = configs.benchmark.get_config()
    made.update({"workloads": ("tiny",), "rounds": 3, "seconds_per_measurement": 0.02} | changes)
    return made


@pytest.fixture
def tiny(monkeypatch):
    """Adds a tiny workload, as the only one of the core."""
    monkeypatch.setitem(WORKLOADS, "tiny", (SMALLEST._replace(name="tiny"),))
    monkeypatch.setattr(benchmark, "CORE", ("tiny",))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_benchmark_from_end_to_end(tmp_path, monkeypatch, capsys):
    """Uses real processes; torch counts as missing, even if it is installed."""
    find = benchmark.importlib.util.find_spec
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    made = benchmark.run(config(peers=("flax,torch",)), tmp_path)
    assert made == json.loads((tmp_path / "benchmark.json").read_text())
    assert {"rows", "absent", "device", "versions", "date", "git"} == made.keys()
    assert {"cpu", "platform", "cores", "threads"} <= made["device"].keys()
    assert {"jax", "flax", "optax"} <= made["versions"].keys()
    assert made["absent"] == {"torch": "torch is not installed: pip install -r requirements-bench.txt"}
    rows = {row["implementation"]: row for row in made["rows"]}
    assert rows.keys() == {"lm", "floor", "flax"}
    for row in rows.values():
        assert row["workload"] == "tiny"
        assert (row["revision"], row["date"]) == ((made["git"] or {}).get("revision"), made["date"])
        assert len(row["rounds"]) == 3
        assert row["tokens_per_s"] == statistics.median(row["rounds"]) > 0
        assert row["spread"] == [min(row["rounds"]), max(row["rounds"])]
        ratios = [a / b for a, b in zip(rows["lm"]["rounds"], row["rounds"], strict=True)]
        assert row["ratio"] == pytest.approx(statistics.median(ratios))
        fractions = [a / b for a, b in zip(row["rounds"], rows["floor"]["rounds"], strict=True)]
        assert row["fraction_of_floor"] == pytest.approx(statistics.median(fractions))
        assert 30 < row["peak_rss_mb"] < 5000
        assert row["compile_s"] > 0
    assert rows["lm"]["ratio"] == rows["floor"]["fraction_of_floor"] == 1
    out = capsys.readouterr().out
    assert "ours/this" in out
    assert "absent: torch" in out
    # The same command has nothing left to measure; another config is refused.
    monkeypatch.setattr(benchmark, "measure", None)
    assert benchmark.run(config(peers=("flax,torch",)), tmp_path)["rows"] == made["rows"]
    with pytest.raises(UserError, match="rounds: 3 -> 2"):
        benchmark.run(config(peers=("flax,torch",), rounds=2), tmp_path)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(workloads=("ptb_train,ptb_trian",)),
            "config.workloads: unknown 'ptb_trian'; known: core, labelled, sweeps, text8_",
        ),
        (dict(workloads=("",)), "config.workloads is empty"),
        (dict(peers=("flax", "lm")), "config.peers: unknown 'lm'; known: flax, torch"),
        (dict(rounds=0), "config.rounds must be at least 1, not 0"),
        (dict(threads=-1), "config.threads must be at least 0, not -1"),
        (
            dict(seconds_per_measurement=0.0),
            "config.seconds_per_measurement must be above 0 and",
        ),
        (dict(threads=10_000), "config.threads must be at most "),
    ],
)
def test_mistakes_in_the_config_are_named(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        benchmark.run(config(**changes), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_names_on_the_command_line_are_split_at_commas():
    path = loading.CONFIGS / "benchmark.py"
    arguments = [f"--config={path}", "--experiment=benchmark", "--config.workloads=ptb_train,cost_batch,ptb_train"]
    parsed = launch.parse_flags(["launch.py", *arguments, "--config.peers=('torch',)"])[0]["config"].value
    workloads, peers, _ = benchmark.check_config(parsed)
    assert [w.name for w in workloads] == ["ptb_train", *(f"cost_batch_{n}" for n in (1, 4, 16, 64, 256))]
    assert peers == ("torch",)


def test_different_losses_are_explained():
    same = [3.0, 3.1, 3.2]
    assert benchmark.explain_mismatch(TINY, [3.0001, 3.11, 3.19], same) == ""
    assert "loss 0 is 3.01" in benchmark.explain_mismatch(TINY, [3.01, 3.1, 3.2], same)
    assert "loss 2 is None" in benchmark.explain_mismatch(TINY, [3.0, 3.1, None], same)
    assert "loss 1 is 3.1, ours is inf" in benchmark.explain_mismatch(TINY, same, [3.0, float("inf"), 3.2])
    assert benchmark.explain_mismatch(TINY._replace(keep_prob=0.5), [3.1, 3.1, 3.2], same) == ""


def test_a_worker_that_fails_or_dies_gives_a_reason():
    worker = Child("experiments/peers/worker.py", errors=subprocess.DEVNULL)
    try:
        request = {"implementation": "no such", "workload": TINY._asdict(), "threads": 1}
        assert benchmark.request_answer(worker, request) == {"absent": "'no such'"}
        worker.process.kill()
        assert benchmark.request_answer(worker, request) == {"absent": "its process ended with status -9"}
    finally:
        worker.close()


def test_whole_runs_are_timed_by_their_commands(tmp_path, monkeypatch):
    """Two seeds of a config with a variant: three commands, and the ratio of the times they took."""
    commands = []
    monkeypatch.setattr(benchmark_lanes.subprocess, "run", lambda command, **_: commands.append(command[1:]))
    times = iter((0.0, 30.0, 40.0))
    monkeypatch.setattr(benchmark_lanes.time, "perf_counter", lambda: next(times))
    named = base()
    named.name, named.data.corpus = "shakespeare/lstm:book", "shakespeare_book"
    found = benchmark_lanes.measure_whole_runs(named, tmp_path, "data", count=2)
    assert found == {"lanes": 2, "seconds_one_after_another": 30.0, "seconds_as_lanes": 10.0, "ratio": 3.0}
    common = ["launch.py", "--config=configs/shakespeare/lstm.py:book", "--config.data.corpus=shakespeare_book"]
    assert [command[:3] for command in commands] == [common] * 3
    assert [command[4] for command in commands] == ["--config.seed=0", "--config.seed=1", "--experiment=lanes"]
    assert commands[2][5] == "--lanes=seed=0:2"
