"""The commands of scripts/, and their options."""

import importlib
from functools import cache

import click

from app.config import ROOT

# It needs no package but cryptography, so its options are argparse's; `tests/scripts/test_prove_statement.py` runs it.
STANDALONE = {"prove_statement"}


@cache
def scripts() -> dict[str, click.Command]:
    """The commands of scripts/, by name."""
    return {name: importlib.import_module(f"scripts.{name}").main for name in script_names() if name not in STANDALONE}


def script_names() -> list[str]:
    paths = sorted((ROOT / "scripts").glob("*.py"))
    return [path.stem for path in paths if "__main__" in path.read_text("utf-8")]


def options_of(command: click.Command) -> set[str]:
    """The long options of a command and of the commands below it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    own = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    return own.union({"--help"}, *(options_of(deeper) for deeper in below))


def parse(arguments: list[str]) -> None:
    """Read the arguments of `python` as it would, and run nothing. Raises KeyError for an unknown script, and
    click.UsageError for a wrong option or value.
    """
    dash_m, module, *rest = arguments
    assert dash_m == "-m"
    scripts()[module.removeprefix("scripts.")].make_context(module, rest)
