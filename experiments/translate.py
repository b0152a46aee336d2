"""Writes the target that a run of sequence to sequence finds for each line.

    echo "123+45" | python launch.py --experiment=translate --workdir=RUN
    python launch.py --experiment=translate --workdir=RUN --text=FILE --config.sample.beams=5

A line of output for each line of input; an empty one for an empty one. Beam search keeps config.sample.beams beginnings
and writes at most config.sample.length symbols.
"""

from experiments.score import read, report_unknown
from lm.run import open_run


def run(config, workdir, data_dir=None, text="-", checkpoint="last"):
    """Returns the lines. text: a file, or "-" for standard input"""
    del data_dir
    opened = open_run(workdir, checkpoint)
    opened.check_config(config)
    opened.check_task("--experiment=translate", "translation")
    lines = read(text, opened.vocabulary.level).removesuffix("\n").split("\n")
    report_unknown(opened, lines)
    written = opened.translate(lines, config.sample)
    for line in written:
        print(line)
    return written
