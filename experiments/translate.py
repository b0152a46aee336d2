"""Translates each line of a text with a sequence-to-sequence run.

    echo "123+45" | python launch.py --experiment=translate --workdir=RUN
    python launch.py --experiment=translate --workdir=RUN --text=FILE --config.sample.beams=5

Prints one line per input line, an empty line for an empty one. Uses beam search of beam width config.sample.beams and
writes at most config.sample.length symbols per line.
"""

from experiments.score import read, report_unknown
from lm.run import open_run


def run(config, workdir, data_dir=None, text="-", checkpoint="last"):
    """Returns the lines. text: a file, or "-" for standard input"""
    opened = open_run(workdir, checkpoint)
    opened.check_config(config)
    opened.check_task("--experiment=translate", "translation")
    lines = read(text, opened.vocabulary.level).removesuffix("\n").split("\n")
    report_unknown(opened, lines)
    written = opened.translate(lines, config.sample)
    for line in written:
        print(line)
    return written
