"""Speed side by side: this project against other libraries and against the floor, on the machine at hand.

Run: python launch.py --experiment=benchmark --config=configs/benchmark.py --workdir=runs/benchmark
     [--config.workloads=ptb_train,text8_train] [--config.peers=flax,torch]

pip install -r requirements-bench.txt gets the peers; those that are not there are listed as absent. What the names
stand for: experiments/peers/workload.py and worker.py. All sweeps: --config.workloads=core,sweeps
"""

import ml_collections

from configs.base import base


def get_config():
    config = ml_collections.ConfigDict()
    config.kind = "benchmark"  # what --experiment can do with it
    config.workloads = ("core",)  # names of workload.py: WORKLOADS; core and sweeps stand for all of a kind
    config.peers = ("flax", "torch", "torch_compile", "keras", "haiku")  # names of worker.py: IMPLEMENTATIONS
    config.rounds = 5  # measurements of each; each round measures all implementations in turn
    config.seconds_per_measurement = 2.0
    config.threads = 0  # of every implementation; 0: as many as there are processors
    config.lm = base()  # of our own runs, whose sizes the workloads set; its steps_per_dispatch counts
    config.lock()
    return config
