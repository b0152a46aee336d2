"""Compares the speed of this project and other libraries with the floor: matrix products alone.

Run: python launch.py --experiment=benchmark --config=configs/benchmark.py --workdir=runs/benchmark
     [--config.workloads=ptb_train,text8_train] [--config.peers=flax,torch]

`pip install -r requirements-bench.txt` installs the other libraries; missing ones are listed as absent. Workloads and
libraries are defined in experiments/peers/workload.py and worker.py. --config.workloads=core,labelled,sweeps runs all
workloads.
"""

import ml_collections

from configs.base import base


def get_config():
    config = ml_collections.ConfigDict()
    config.kind = "benchmark"  # the kind of command that reads this config
    config.workloads = ("core",)  # names of WORKLOADS in workload.py; core, labelled and sweeps are groups
    # names of IMPLEMENTATIONS in worker.py
    config.peers = ("flax", "torch", "torch_compile", "keras", "haiku", "torch_sorted", "keras_sorted")
    config.rounds = 5  # number of rounds; each round measures every implementation once, in turn
    config.seconds_per_measurement = 2.0
    config.threads = 0  # CPU threads of every implementation; 0: one per processor
    config.lm = base()  # config of this project's runs; workloads set the sizes
    config.lock()
    return config
