"""The command line: a subcommand for each recipe, its flags read off the recipe's fields."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from diffpolicy.errors import InputError
from diffpolicy.recipes.bc import Bc
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.correct import Correct
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy.recipes.quickstart import Quickstart
from diffpolicy.recipes.run import settings
from diffpolicy.recipes.video import Video

__all__ = ["RECIPES", "main"]

RECIPES: dict[str, Callable[..., Any]] = {
    "quickstart": Quickstart,
    "collect": Collect,
    "bc": Bc,
    "correct": Correct,
    "evaluate": Evaluate,
    "video": Video,
}

DESCRIPTION = (
    "Diffusion policies for robot control: imitation, on-policy correction, evaluation. "
    "Add --dry-run to any command to print its resolved configuration and stop."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one recipe; returns the exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    if "" not in sys.path:  # as with `python -m`: modules of the user's folder can be named
        sys.path.insert(0, "")
    dry = "--dry-run" in words
    words = [word for word in words if word != "--dry-run"]
    try:
        if words and not words[0].startswith("-") and words[0] not in RECIPES:
            near = difflib.get_close_matches(words[0], RECIPES, 1, 0.0)
            raise InputError(f"unknown command {words[0]!r}; did you mean {near[0]}? There are {', '.join(RECIPES)}")
        recipe = tyro.extras.subcommand_cli_from_dict(
            RECIPES, prog="diffpolicy", description=DESCRIPTION, args=words or ["--help"]
        )
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
    except OSError as error:
        print(f"diffpolicy: the disk or a file failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = "the same command without --overwrite" if "--overwrite" in words else "the same command"
        print(f"\ninterrupted: what was saved is on disk; {again} goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
