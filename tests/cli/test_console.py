"""Progress and tables: plain lines in a pipe, spinners on a terminal, and valid JSON."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cli.console import Output, to_jsonable
from cli.demo_calls import _show_items


def test_in_a_pipe_every_step_is_a_line_on_stderr(capsys):
    output = Output()
    with output.working(total=2):
        output.step("[one] of two")
        output.advance()
        output.step("two")
    assert capsys.readouterr() == ("", "[one] of two\ntwo\n")


def test_on_a_terminal_finished_steps_stay(monkeypatch):
    output = Output()
    screen = io.StringIO()
    output.err = Console(file=screen, force_terminal=True, width=100)
    with output.working(total=2):
        output.step("reading [orders]")
        output.advance()
        output.step("writing")
    assert "✓" in screen.getvalue()
    assert "reading [orders]" in screen.getvalue()


def test_values_of_all_layers_are_written_as_json(capsys):
    Output(as_json=True).result(
        {
            "at": datetime(2024, 1, 2),
            "path": Path("a b"),
            "n": np.int64(3),
            "x": np.float32(0.5),
            "nothing": float("nan"),
        }
    )
    assert capsys.readouterr().out == '{"at":"2024-01-02T00:00:00","path":"a b","n":3,"x":0.5,"nothing":null}\n'
    with pytest.raises(TypeError):
        to_jsonable(object())


def test_with_json_only_the_result_is_printed(capsys):
    output = Output(as_json=True)
    output.say("hello")
    output.table("title", ["a"], [[1]])
    assert capsys.readouterr().out == ""


def test_markup_in_data_is_not_interpreted(capsys):
    Output().table("", ["name"], [["[red]not red[/red]"]])
    assert "[red]not red[/red]" in capsys.readouterr().out


@pytest.mark.parametrize(("fallback", "said"), [("popular", "fallback: popular;"), (None, "fallback: none")])
def test_a_list_says_its_fallback_and_claims_no_history(capsys, fallback, said):
    """Scene `discover` shows what the customer never bought, and has no fallback either."""
    item = {"item_id": "i1", "rank": 1, "source": "ials", "reasons": []}
    _show_items(Output(), {"items": [item], "fallback": fallback, "model": {"version": "1"}}, {})
    out = capsys.readouterr().out
    assert said in out
    assert "history" not in out
