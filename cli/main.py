"""`qianmian`: the registry of verbs, and the only place where errors become messages and exit codes."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.analytics import analytics
from cli.customer import customer
from cli.demo import demo
from cli.doctor import doctor
from cli.erase import erase
from cli.features import features
from cli.identity import identity
from cli.ingest import ingest
from cli.keys import keys
from cli.measure import measure
from cli.models import models
from cli.monitor import monitor
from cli.score import score
from cli.serve import serve
from cli.tags import tags
from cli.train import train
from qianmian import __version__
from qianmian.errors import QianmianError, WorkspaceError
from qianmian.redaction import redact, redact_logs
from qianmian.registry import Registry

VERBS: Registry[Callable[..., Any] | typer.Typer] = Registry(
    "verb",
    {
        "demo": demo,
        "ingest": ingest,
        "features": features,
        "identity": identity,
        "tags": tags,
        "customer": customer,
        "analytics": analytics,
        "train": train,
        "models": models,
        "monitor": monitor,
        "score": score,
        "measure": measure,
        "keys": keys,
        "serve": serve,
        "erase": erase,
        "doctor": doctor,
    },
)

UNEXPECTED_EXIT = 1
INTERRUPTED_EXIT = 130
# some versions of typer import click and others contain a copy of it; the base class of typer's exception fits both
ClickException: Any = typer.BadParameter.__mro__[2]
DISK_FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")
BUG_REPORT_HINT = "run the command again with --debug and report the output"


class OrderedGroup(TyperGroup):
    """Lists the verbs in the order of `VERBS`, which is the order of use."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)


app = typer.Typer(
    cls=OrderedGroup,
    name="qianmian",
    help="Customer profiles, recommenders, predictions and audiences, served over HTTP; what campaigns cause.",
    epilog="Exit codes: 0 success · 1 internal error · 2 usage or configuration · 3 data, or a check that found "
    "something · 4 refused by the gate · 5 alarm of a monitor · 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may be placed anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Declare the options of `qianmian` itself; `run` removes `--debug` before parsing."""


for _name, _verb in VERBS.items():
    if isinstance(_verb, typer.Typer):
        app.add_typer(_verb, name=_name)
    else:
        app.command(_name)(_verb)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; never raise or exit.

    Examples
    --------
    >>> run(["--version"])
    0.1.0
    0
    """
    debug = "--debug" in arguments
    quieten(debug)
    as_json = "--json" in arguments
    kept = [argument for argument in arguments if argument != "--debug"]
    try:
        code = app(kept, standalone_mode=False, prog_name="qianmian")
        if code == INTERRUPTED_EXIT:  # Typer returns it for Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except QianmianError as error:
        return _report_error(error.as_dict(), str(error), error.exit_code, as_json, debug)
    except ClickException as error:
        return _usage(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; existing data is unchanged", file=sys.stderr)
        return INTERRUPTED_EXIT
    except BrokenPipeError:
        # the reader of stdout has closed the pipe (`| head`), so there is nothing left to print
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return 0
    except Exception as error:  # noqa: BLE001 every other error becomes a message instead of a traceback
        if any(text in str(error) for text in DISK_FULL):
            full = WorkspaceError(
                "the disk is full",
                hint="free some space or choose a --workspace on another disk; existing data is unchanged",
            )
            return _report_error(full.as_dict(), str(full), full.exit_code, as_json, debug)
        message = f"{type(error).__name__}: {redact(' '.join(str(error).split()))[:500]}"
        found = {"code": "internal", "message": message, "field": None, "hint": BUG_REPORT_HINT}
        return _report_error(
            found,
            f"{message}. This is a bug in Qianmian, not a problem of your data. Please {BUG_REPORT_HINT}",
            UNEXPECTED_EXIT,
            as_json,
            debug,
        )


def quieten(debug: bool) -> None:
    """Silence the warnings, log lines and progress bars of libraries, and disable their telemetry."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "BENTOML_DO_NOT_TRACK", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    redact_logs()
    if debug:
        logging.captureWarnings(True)
        logging.basicConfig(
            level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        return
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("features.data.pii_key").setLevel(logging.WARNING)  # a key that others can read


def _report_error(found: dict[str, Any], text: str, code: int, as_json: bool, debug: bool) -> int:
    if debug:
        print(redact(traceback.format_exc()), end="", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": found}, ensure_ascii=False))
    else:
        print(f"qianmian: {text}", file=sys.stderr)
    return code


def _usage(error: Any, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "qianmian"
    # a group without arguments raises an exception whose message is the help text
    if type(error).__name__ == "NoArgsIsHelpError":
        message, hint = "the command is missing", f"see `{path} --help`"
        if not as_json:
            print(error.format_message(), file=sys.stderr)
            return int(error.exit_code)
    else:
        message, hint = " ".join(error.format_message().split()).rstrip("."), f"see `{path} --help`"
    found = {"code": "usage", "message": message, "field": None, "hint": hint}
    return _report_error(found, f"{message}. Fix: {hint}", 2, as_json, debug=False)


def main() -> None:
    """Entry point of the console script."""
    # OpenMP threads that spin while they wait are ten times slower on a busy machine (XGBoost, 13,000 rows on two busy
    # cores: 47 s spinning, 3 s sleeping); libgomp reads this variable once, when it is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = run(sys.argv[1:])
    if code == INTERRUPTED_EXIT:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would interrupt the end
        # the interpreter would wait for the fits that still run in threads. Nothing is lost: every file of a workspace
        # is written under a temporary name and renamed
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # the interpreter would look for cycles among all objects of all libraries before it ends: 0.5 CPU s
    sys.exit(code)


if __name__ == "__main__":
    main()
