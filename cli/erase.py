"""`qianmian erase`: takes a customer out of the workspace, finishes what was interrupted, and checks receipts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Output
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from qianmian.errors import DataError, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from training.erasure import Receipt

STANDARD_INPUT = "-"


def erase(
    user_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[USER_ID]",
            help="Customer id of your system, or the one_id. `-` reads it from standard input, so that it is not in "
            "the list of processes.",
            show_default=False,
        ),
    ] = None,
    user_source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="Source of the id, if several sources use it or none knows it.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="For the receipt, such as a ticket.", show_default=False),
    ] = None,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown", help="Accept an id that no customer has: its rejected rows go, and later rows are refused."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish the erasures that were interrupted or are not complete.")
    ] = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            "--verify",
            metavar="RECEIPT",
            help="Check the signature of a receipt; nothing is erased.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a customer everywhere in the workspace, and write a signed receipt.

    All user ids of the customer are erased, and refused by every later ingest. It cannot be undone.

    The exit code is 3 if no customer has the id, or if something of the customer is left.
    """
    if sum((user_id is not None, resume, verify is not None)) != 1:
        raise UsageError(
            "name a user id, --resume or --verify",
            where="qianmian erase",
            hint="run `qianmian erase USER_ID`, or `qianmian erase -` to read the id from standard input",
        )
    output, located = Output(as_json), Workspace.locate(workspace)
    if verify is not None:
        _verify(output, located, verify)
        return

    from qianmian.config import load_settings
    from training.erasure import erase_customer, resume_erasures

    located.require()
    with output.working():
        if user_id is None:
            receipts = resume_erasures(located, now=utc_now(), progress=output.step)
        else:
            named = _from_input() if user_id == STANDARD_INPUT else user_id
            settings = load_settings(located.config_file)
            receipts = [
                erase_customer(
                    located,
                    settings,
                    named,
                    user_source,
                    now=utc_now(),
                    reason=reason,
                    unknown=unknown,
                    progress=output.step,
                )
            ]
    found = [receipt.as_dict() for receipt in receipts]
    output.result({"workspace": located.root, **(found[0] if user_id is not None else {"receipts": found})})
    _show(output, receipts)
    left = sum(len(receipt.left) for receipt in receipts)
    if left and as_json:
        raise typer.Exit(DataError.exit_code)
    if left:
        raise DataError(
            "something of the customer is left",
            where=str(located.root),
            got=f"{left} finding(s), listed above",
            hint="remove or correct these files, then run `qianmian erase --resume`",
        )


def _from_input() -> str:
    text = sys.stdin.readline().rstrip("\r\n")
    if not text:
        raise UsageError(
            "standard input has no user id", where="qianmian erase -", hint="write the id to it, in one line"
        )
    return text


def _show(output: Output, receipts: Sequence[Receipt]) -> None:
    if not receipts:
        output.say("no erasure has been interrupted")
    for receipt in receipts:
        facts = receipt.facts
        rows = [[place.replace("_", " "), count] for place, count in facts["removed"].items()]
        output.table(f"erased: {len(facts['tombstones'])} user id(s)", ["place", "removed"], rows, right=["removed"])
        for finding in receipt.left:
            output.say(f"  left: {finding['kind']} in {finding['path']}")
        for text in facts["not_reached"]:
            output.say(f"  not reached: {text}")
        output.say(f"receipt: {receipt.file}, signed with key {receipt.fingerprint}")


def _verify(output: Output, located: Workspace, file: Path) -> None:
    from training.receipts import verify

    found = verify(located, file)
    output.result({"valid": True, "fingerprint": found.fingerprint, "own": found.own, "receipt": dict(found.facts)})
    whose = "the key of this workspace" if found.own else "not the key of this workspace: compare it with its owner's"
    output.say(f"the signature is right; key {found.fingerprint} ({whose})")
    state = "complete" if found.facts["complete"] else f"not complete, {len(found.facts['left'])} finding(s)"
    output.say(f"erasure {found.facts['erasure_id']} of {found.facts['erased_at']} UTC: {state}")
