"""The workspace of `qianmian demo --quick`: a sample is not mixed with the data of all customers."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.demo import QUICK_CUSTOMERS, check_sample, demo_workspace
from qianmian.errors import UsageError
from qianmian.workspace import Workspace


def test_a_sample_has_a_workspace_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("QIANMIAN_WORKSPACE", str(tmp_path / "shop"))
    assert demo_workspace(None, quick=True) == tmp_path / "shop-quick"
    assert demo_workspace(None, quick=False) is None
    monkeypatch.delenv("QIANMIAN_WORKSPACE")
    monkeypatch.chdir(tmp_path)
    assert demo_workspace(None, quick=True) == tmp_path / "workspace-quick"


@pytest.mark.parametrize("quick", [True, False])
def test_the_workspace_that_is_given_is_taken(quick):
    assert demo_workspace(Path("mine"), quick) == Path("mine")


def test_a_workspace_with_more_customers_than_the_sample_is_refused(tmp_path):
    check_sample(Workspace(tmp_path), QUICK_CUSTOMERS)
    with pytest.raises(UsageError, match="more households than the sample") as raised:
        check_sample(Workspace(tmp_path), QUICK_CUSTOMERS + 1)
    assert raised.value.where == str(tmp_path)
    assert "--workspace" in raised.value.hint
