"""PyTorch: nn.Embedding, nn.LSTM (GRU, RNN), nn.Linear, cross_entropy, clip_grad_norm_, SGD.

The state is detached between windows.
torch.compile skips nn.LSTM, nn.GRU and nn.RNN: it compiles the rest of a training step and nothing in a forward pass.
(torch._dynamo.config.allow_rnn includes these modules, but torch 2.13 then fails on a CPU.)
Order `random` packs labelled sequences (pack_padded_sequence); order `sorted` pads them to the longest of their batch.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from experiments.peers.sequences import pad, peer_batches
from experiments.peers.workload import Program, Workload, draw_parameters, draw_text, layers, mean_nats, windows
from lm.errors import UserError

MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}


class Model(nn.Module):
    """Embedding or one-hot input, recurrent layers, nn.Linear. Consecutive layers of equal size share a module."""

    def __init__(self, workload: Workload):
        super().__init__()
        self.workload = workload
        if workload.embedding:
            self.encoder = nn.Embedding(workload.vocabulary, workload.embedding)
        self.rnns = nn.ModuleList()
        inputs = workload.inputs[0]
        for units, same in itertools.groupby(workload.hidden):
            count = len(list(same))
            between = 1 - workload.keep_prob if count > 1 else 0.0
            self.rnns.append(MODULES[workload.cell](inputs, units, num_layers=count, dropout=between))
            inputs = units
        self.drop = nn.Dropout(1 - workload.keep_prob)
        self.decoder = nn.Linear(inputs, workload.outputs)

    @property
    def stack(self) -> list[Any]:
        """The recurrent modules, typed Any because torch does not type their attributes."""
        return list(self.rnns)

    def forward(self, tokens, states):
        """tokens [T, B], states (one per module) -> (logits [T, B, V], states)."""
        if self.workload.embedding:
            x = self.drop(self.encoder(tokens))
        else:
            x = functional.one_hot(tokens, self.workload.vocabulary).float()
        after = []
        for index, rnn in enumerate(self.stack):
            x, state = rnn(self.drop(x) if index else x, states[index])
            after.append(state)
        return self.decoder(self.drop(x)), after

    def logit_packed(self, tokens, lengths):
        """Padded tokens [T, B], lengths [B] -> the logit [B] of label 1. Padding is neither embedded nor read."""
        packed = pack_padded_sequence(tokens, lengths, enforce_sorted=False)
        embedded = packed._replace(data=self.encoder(packed.data))
        return self.decoder(self.stack[0](embedded)[1][0][-1])[:, 0]

    def logit_padded(self, tokens, lengths):
        """Like `logit_packed`, but the layer also reads the padding. Uses the output at each last token."""
        h, _ = self.stack[0](self.encoder(tokens))
        return self.decoder(h[lengths - 1, torch.arange(len(lengths))])[:, 0]

    def zero_states(self, batch: int) -> list:
        """Zero states, one per module: [layers, B, H]; for an LSTM, a pair of them."""
        weight = self.decoder.weight
        zeros = [weight.new_zeros(rnn.num_layers, batch, rnn.hidden_size) for rnn in self.stack]
        return [(x, x) for x in zeros] if self.workload.cell == "lstm" else zeros

    @torch.no_grad()
    def load(self, parameters: dict[str, np.ndarray]):
        """Copies the parameters of workload.draw_parameters, transposing matrices. The gate order is the same."""
        own = layers(parameters)
        for rnn in self.stack:
            for index in range(rnn.num_layers):
                layer, units = own.pop(0), rnn.hidden_size
                second = np.zeros_like(layer["b"])
                if "b_h" in layer:
                    second[2 * units :] = layer["b_h"]
                arrays = {"weight_ih": layer["w_x"].T, "weight_hh": layer["w_h"].T}
                arrays |= {"bias_ih": layer["b"], "bias_hh": second}
                for name, value in arrays.items():
                    getattr(rnn, f"{name}_l{index}").copy_(torch.from_numpy(np.ascontiguousarray(value)))
        if self.workload.embedding:
            self.encoder.weight.copy_(torch.from_numpy(parameters["embedding"]))
        self.decoder.weight.copy_(torch.from_numpy(np.ascontiguousarray(parameters["output_kernel"].T)))
        self.decoder.bias.copy_(torch.from_numpy(parameters["output_bias"]))


def detach(states: list) -> list:
    return [tuple(x.detach() for x in s) if isinstance(s, tuple) else s.detach() for s in states]


def build(workload: Workload, compiled: bool = False, order: str = "random", first: Sequence = ()) -> Program:
    """compiled: use torch.compile, which needs a C++ compiler; order, first: arguments of `peer_batches`, for labelled
    sequences. Raises UserError if torch.compile would compile nothing."""
    if compiled and workload.kind != "train":
        raise UserError(f"torch.compile does not compile nn.{MODULES[workload.cell].__name__}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as in JAX; no effect on a CPU
    torch.manual_seed(0)
    model = Model(workload).to(device)
    model.load(draw_parameters(workload))
    if workload.labelled:
        logit = model.logit_padded if order == "sorted" else model.logit_packed
        return _classification(workload, model, logit, peer_batches(workload, first, order))
    batches = torch.from_numpy(windows(workload, draw_text(workload))).long().to(device)
    if workload.kind == "train":
        return _training(workload, model, batches, compiled)
    model.eval()
    return (_evaluation if workload.kind == "evaluate" else _sampling)(workload, model, batches)


def _training(workload: Workload, model: Model, batches: torch.Tensor, compiled: bool) -> Program:
    optimiser = torch.optim.SGD(model.parameters(), lr=workload.learning_rate)
    states = model.zero_states(workload.batch)

    def loss(window, states):
        logits, after = model(window[:-1], states)
        return functional.cross_entropy(logits.flatten(0, 1), window[1:].flatten()), after

    forward = torch.compile(loss) if compiled else loss

    def gradient(step: int) -> torch.Tensor:
        nonlocal states
        nats, states = forward(batches[step % len(batches)], detach(states))
        (workload.objective_scale * nats).backward()
        nn.utils.clip_grad_norm_(model.parameters(), workload.clip)
        return nats

    return Program(_steps(model, optimiser, gradient))


def _classification(workload: Workload, model: Model, logit: Callable, batches: Callable) -> Program:
    optimiser = torch.optim.Adam(model.parameters(), lr=workload.learning_rate)

    def gradient(step: int) -> torch.Tensor:
        tokens, lengths, labels = map(torch.from_numpy, pad(workload, batches(step)))
        device = model.decoder.weight.device
        found = logit(tokens.long().T.to(device), lengths)  # pack_padded_sequence needs lengths on the CPU
        nats = functional.binary_cross_entropy_with_logits(found, labels.float().to(device))
        nats.backward()
        return nats

    return Program(_steps(model, optimiser, gradient), batches=batches)


def _steps(model: Model, optimiser: torch.optim.Optimizer, gradient: Callable[[int], torch.Tensor]) -> Callable:
    """Returns a function that makes n steps. gradient: adds the gradient of a step and returns its nats"""
    done = 0

    def run(n: int) -> float:
        nonlocal done
        model.train()
        for _ in range(n):
            optimiser.zero_grad()
            nats = gradient(done)
            optimiser.step()
            done += 1
        if nats.is_cuda:
            torch.cuda.synchronize()  # waits for the last step
        return nats.item()

    return run


def _evaluation(workload: Workload, model: Model, batches: torch.Tensor) -> Program:
    @torch.no_grad()
    def run(n: int) -> float:
        for _ in range(n):
            states = model.zero_states(1)
            # One preallocated array: many small ones would fragment the heap.
            nats = torch.empty(len(batches), workload.unroll, device=batches.device)
            for index, window in enumerate(batches):
                logits, states = model(window[:-1], states)
                nats[index] = functional.cross_entropy(logits[:, 0], window[1:, 0], reduction="none")
            mean = mean_nats([nats.cpu().numpy()], workload)
        return mean

    return Program(run)


def _sampling(workload: Workload, model: Model, batches: torch.Tensor) -> Program:
    @torch.no_grad()
    def run(n: int) -> float:
        for _ in range(n):
            tokens, states = batches[0, 0], model.zero_states(workload.batch)
            texts = [tokens]
            for _ in range(workload.length - 1):
                logits, states = model(tokens[None], states)
                tokens = torch.multinomial(logits[0].softmax(-1), 1)[:, 0]
                texts.append(tokens)
            torch.stack(texts).cpu()
        return float("nan")

    @torch.no_grad()
    def first_nats() -> float:
        logits, _ = model(batches[0, :-1], model.zero_states(workload.batch))
        return functional.cross_entropy(logits.flatten(0, 1), batches[0, 1:].flatten()).item()

    return Program(run, first_nats)


VERSIONS = {"torch": torch.__version__}
