"""The ``steepest`` command: what becomes of an error, and with which exit code.

0 done, 1 a fault of ours, 2 the user's input is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

import typer

from steepest.cli.app import app
from steepest.cli.surroundings import (
    REFUSALS,
    fill_standard_places,
    gentle_end,
    let_go_of_output,
    plain_warnings,
    refusal,
)
from steepest.errors import InputError, inert, near_names, told

__all__ = ["entry", "main"]

OK, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_HEAD_START_SEC = 3.0


def entry() -> NoReturn:
    """The command itself: run it, and leave with its exit code."""
    code = main()
    if code == INTERRUPTED or _has_ranks():
        # An import that Ctrl-C cut short can leave Python resolved to die of the signal whatever we return; and gloo's
        # threads may be in the middle of a step that another rank has left: Python, ending around them, would abort.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _has_ranks() -> bool:
    """Whether this process is one of those that torchrun has started."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``arguments`` are ``sys.argv[1:]`` unless given."""
    fill_standard_places()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows "?", and goes on
    command = typer.main.get_command(app)

    def was_interrupted() -> bool:
        return False

    try:
        with (
            gentle_end() as was_interrupted,
            plain_warnings(),
            command.make_context(
                "steepest", list(sys.argv[1:] if arguments is None else arguments)
            ) as context,
        ):
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        return stop.exit_code
    except InputError as error:
        return _say(str(error), BAD_INPUT, is_told=getattr(error, "is_told", None))
    except typer.TyperException as error:
        return _say(_usage_sentence(error), BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted.", INTERRUPTED)
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # what rich makes of one
            return _reader_left()
        # Nothing of ours ends by it: a data set or a module does, that a command was given.
        return _say(f"code of your own ended the program: {told(stop)}", BAD_INPUT)
    except MemoryError:
        return _say("there is not enough memory for this; give fewer rows, or a smaller model.", BAD_INPUT)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in REFUSALS:
            let_go_of_output()
            return _say(refusal(error), BAD_INPUT)
        if was_interrupted():
            return _say("interrupted.", INTERRUPTED)
        import traceback

        traceback.print_exc()
        return _say(f"this is a fault of ours, not of your input: {type(error).__name__}: {error}", FAULT)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how polars and vl-convert end where they see no way on
            raise
        return _say(f"a library that is used here gave up: {str(error).splitlines()[0]}", FAULT)
    return OK


def _reader_left() -> int:
    """The reader has seen enough (``steepest list | head``): nothing more is written, not even at exit."""
    let_go_of_output()
    return OK


def _say(sentence: str, exit_code: int, is_told: bool | None = None) -> int:
    """Print a sentence, unless another of the processes that torchrun has started prints it."""
    if _is_not_first() if is_told is None else is_told:
        time.sleep(_HEAD_START_SEC)  # torchrun ends all processes when one has ended
        return exit_code
    sentence = inert(sentence)
    sys.stderr.write(f"steepest: {sentence}{'' if sentence.endswith(('.', '?')) else '.'}\n")
    return exit_code


def _is_not_first() -> bool:
    return _has_ranks() and os.environ["RANK"] != "0"


def _usage_sentence(error: typer.TyperException) -> str:
    """One sentence for a wrong option or command, with the names that are near."""
    context = getattr(error, "ctx", None)
    unknown = getattr(error, "option_name", None)
    path = context.command_path if context is not None else "steepest"
    if type(error).__name__ == "NoSuchOption" and context is not None and unknown is not None:
        known = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        options = [name for name in known if name.startswith("--")]
        return f"{path} has no option {unknown}{near_names(unknown, options)}"
    sentence = error.format_message().strip().rstrip(".").replace(". Did you mean", "; did you mean")
    sentence = sentence[:1].lower() + sentence[1:]
    return sentence if sentence.endswith("?") else f"{sentence}; see '{path} --help'."
