"""The command line: a subcommand for each recipe, its flags read off the recipe's fields."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import tyro

from diffpolicy.errors import InputError, nearest
from diffpolicy.recipes.agree import Agree
from diffpolicy.recipes.bc import Bc
from diffpolicy.recipes.change import Change
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.correct import Correct
from diffpolicy.recipes.describe import Describe
from diffpolicy.recipes.distil import Distil
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy.recipes.expert import Expert
from diffpolicy.recipes.export import Export
from diffpolicy.recipes.quickstart import Quickstart
from diffpolicy.recipes.redif import Redif
from diffpolicy.recipes.run import settings
from diffpolicy.recipes.video import Video

__all__ = ["RECIPES", "main"]

RECIPES: dict[str, Callable[..., Any]] = {
    "quickstart": Quickstart,
    "expert": Expert,
    "collect": Collect,
    "bc": Bc,
    "correct": Correct,
    "distil": Distil,
    "redif": Redif,
    "change": Change,
    "evaluate": Evaluate,
    "agree": Agree,
    "video": Video,
    "export": Export,
    "describe": Describe,
}

# a network's kind as its settings are called, beside what tyro makes of the name
_NETWORKS = {"policy.network:unet-config": "policy.network:u-net-config"}

DESCRIPTION = (
    "Diffusion policies for robot control: imitation, on-policy correction, distillation, evaluation, export. "
    "Add --dry-run to any command to print its resolved configuration and stop; --version prints the version."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one recipe; returns the exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    if "" not in sys.path:  # as with `python -m`: modules of the user's folder can be named
        sys.path.insert(0, "")
    dry = "--dry-run" in words
    words = [word for word in words if word != "--dry-run"]
    try:
        if words[:1] == ["--version"]:
            print(f"diffpolicy {version('diffpolicy')}")
            return 0
        recipe = _parsed(words)
        if dry:
            print(json.dumps(settings(recipe), indent=1))
            return 0
        # before torch is imported: its threads shall sleep, not spin, while they wait for busy cores
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        recipe()
    except InputError as error:
        print(f"diffpolicy: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"diffpolicy: training diverged: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        print(f"diffpolicy: the memory does not suffice ({error}); use smaller numbers", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"diffpolicy: the disk or a file failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = "the same command without --overwrite" if "--overwrite" in words else "the same command"
        print(f"\ninterrupted: {again} goes on from what was saved, or else starts again", file=sys.stderr)
        return 130
    return 0


def _parsed(words: Sequence[str]) -> Callable[[], Any]:
    """The recipe that the words ask for; leaves with status 0 after help and 2 after what tyro refuses."""
    first = words[0] if words else "--help"
    if first in ("-h", "--help", "help"):
        tyro.extras.subcommand_cli_from_dict(RECIPES, prog="diffpolicy", description=DESCRIPTION, args=["--help"])
    if first not in RECIPES:
        what = "flag" if first.startswith("-") else "command"
        near = nearest(first, [*RECIPES, "--help", "--version", "--dry-run"], 1) or "."
        raise InputError(
            f"unknown {what} {first!r}{near} The commands are {', '.join(RECIPES)}; a command's flags follow it"
        )
    _require_once(words[1:])
    _require_values(first, words[1:])
    args = [_NETWORKS.get(word, word) for word in words[1:]]
    cascade = (tyro.conf.CascadeSubcommandArgs,)  # flags may stand before and after the choice of a network
    return tyro.cli(RECIPES[first], prog=f"diffpolicy {first}", args=args, config=cascade)  # type: ignore[no-any-return]


def _require_once(words: Sequence[str]) -> None:
    """Raises InputError where a flag is given twice, of which only the last would count."""
    seen: set[str] = set()
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag in seen:
            raise InputError(
                f"expected {flag} once, got it twice, of which only the last would count; several values of one flag "
                "follow it, one after the other"
            )
        seen.add(flag)


def _require_values(command: str, words: Sequence[str]) -> None:
    """Raises InputError where a flag that takes several values, and has none by default, is given none.

    It may have been a shell's variable that was empty.
    """
    recipe: Any = RECIPES[command]
    several = {f"--{each.name.replace('_', '-')}" for each in fields(recipe) if each.default == ()}
    for word, following in pairwise([*words, "--"]):
        if (flag := word.replace("_", "-")) in several and following.startswith("--"):
            raise InputError(f"expected one value or several after {flag}, got none; say them, or leave it out")


if __name__ == "__main__":
    sys.exit(main())
