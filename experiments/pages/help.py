"""The text of --help: the commands with their flags, and lists of what a config can name."""

import ast
import functools
import importlib
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from configs.catalogue import CONFIGS, all_configs
from configs.rules import RULES
from experiments import COMMANDS, COMMON_FLAGS, DISTRIBUTED_FLAGS, Command, Flag
from lm.errors import UserError, in_short, lookup

ROOT = CONFIGS.parent
CONFIG = "--config=FILE[:VARIANT]  Config of the run; --config.KEY=VALUE overrides a key."


def help_text(topic: str, command: str, introduction: str | None) -> str:
    """Returns the text of --help=TOPIC for a list or a command. If `topic` is empty, returns the help of `command`, or
    else `introduction` and an overview. Raises UserError for an unknown topic or command."""
    if topic in TOPICS:
        return TOPICS[topic]()
    if topic and topic not in COMMANDS:
        raise UserError(f"--help={in_short(topic)[1:-1]}: known are {', '.join(TOPICS)} and the commands")
    if command := topic or command:
        chosen = lookup(COMMANDS, command, "--experiment")
        return f"{docstring(chosen)}\n\nflags:\n{flag_lines((*chosen.flags, *COMMON_FLAGS))}"
    topics = ", ".join(f"--help={name}" for name in TOPICS)
    several = "for several processes that train one run: " + ", ".join(f"--{flag.name}" for flag in DISTRIBUTED_FLAGS)
    common = ["every command", f"    {CONFIG}", flag_lines(COMMON_FLAGS), f"    {several}", ""]
    return "\n".join([introduction or "", *map(section, COMMANDS), *common, f"Lists: {topics}"])


def section(name: str) -> str:
    """A command's purpose in one line, and its own flags."""
    command = COMMANDS[name]
    lines = f"--experiment={name}\n    {docstring(command).splitlines()[0]}\n"
    return lines + (flag_lines(command.flags) + "\n" if command.flags else "")


def flag_lines(flags: Iterable[Flag]) -> str:
    """A line for each flag, with its default if it has one."""
    lines = []
    for flag in flags:
        default = "" if flag.default in ("", None) or isinstance(flag.default, bool) else f" [{flag.default}]"
        name = f"--{'no' if flag.default is True else ''}{flag.name}"
        lines += textwrap.wrap(f"{name}  {flag.help}{default}", 116, initial_indent="    ", subsequent_indent=" " * 8)
    return "\n".join(lines)


def docstring(command: Command) -> str:
    """The docstring of the command's file, read without importing it."""
    path = ROOT.joinpath(*command.module.split(".")).with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


# --- Lists ----------------------------------------------------------------------------------------------------------


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """A line for each row, its second cell aligned."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}".rstrip() for name, text in rows)


def configs() -> str:
    """Every config with the first line of its docstring."""
    return columns((f"--config={entry.path}", first_line(entry.module)) for entry in all_configs())


def keys() -> str:
    """Every key of a training config with its default and its comment: lines of configs/base.py."""
    text = (CONFIGS / "base.py").read_text(encoding="utf-8")
    lines = re.findall(r"^    (?:config\.)?(\S+) = (.+?)  # (.+)$", text, re.MULTILINE)
    return columns((f"--config.{key}={value}", comment) for key, value, comment in lines if key in RULES)


def entries(table: str, key: str) -> str:
    """The names of a table "module:NAME", which are values of a key, with the first line of each entry's docstring."""
    module, _, name = table.partition(":")
    found = getattr(importlib.import_module(module), name)
    return f"--config.{key}=NAME\n" + columns((f"  {each}", first_line(entry)) for each, entry in found.items())


def first_line(entry: Any) -> str:
    """The entry's `purpose`, or the first line of its docstring; for a tuple, that of the function it holds."""
    if purpose := getattr(entry, "purpose", ""):
        return purpose
    for name in ("equations", "windows", "build"):
        entry = getattr(entry, name, entry)
    while isinstance(entry, functools.partial):
        entry = entry.func
    return entry.__doc__.strip().splitlines()[0] if entry.__doc__ else ""


TOPICS: dict[str, Callable[[], str]] = {
    "configs": configs,
    "keys": keys,
    "tasks": lambda: entries("lm.tasks:TASKS", "task"),
    "cells": lambda: entries("lm.cells.table:CELLS", "model.cell"),
    "corpora": lambda: entries("lm.data.corpora:CORPORA", "data.corpus"),
    "protocols": lambda: entries("lm.tasks:PROTOCOLS", "evaluation.protocols"),
    "optimisers": lambda: entries("lm.training.optim:OPTIMISERS", "optim.name"),
    "initialisers": lambda: entries("lm.model.initialisers:INITIALISERS", "init.ROLE"),
}
