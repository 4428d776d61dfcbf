"""The command `limbeck`: finds the verb, turns errors into a sentence and an exit status."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from limbeck.cli.arguments import make_parser, parse
from limbeck.errors import LimbeckError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0 done; 1 a run or a claim failed; 2 bad input; 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options, overrides = parse(make_parser(), words)
        verb = importlib.import_module(f"limbeck.cli.{options.verb}")
        return int(verb.run(options, overrides) or 0)
    except LimbeckError as error:
        complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left, as `| head` does; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def complain(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"limbeck: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
