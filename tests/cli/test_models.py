"""`qianmian models` on a workspace without any."""

from __future__ import annotations

import pytest


def test_an_empty_registry_is_no_error(qianmian, shop):
    done = qianmian("models", "list", "--workspace", shop)
    assert done.code == 0
    assert "qianmian train all" in done.out
    assert qianmian("models", "history", "--workspace", shop, "--json").json["events"] == []
    assert not (shop / "mlflow.db").exists()  # looking creates nothing


@pytest.mark.parametrize(
    "arguments",
    [["show", "churn"], ["history", "churn"], ["promote", "churn", "one"], ["promote", "churn", "0"]],
    ids=" ".join,
)
def test_what_is_not_there_is_exit_2(qianmian, shop, arguments):
    done = qianmian("models", *arguments, "--workspace", shop)
    assert done.code == 2
    assert "Fix:" in done.err


def test_exporting_nothing_is_refused(qianmian, shop, tmp_path):
    done = qianmian("models", "export", "--out", tmp_path / "champions", "--workspace", shop)
    assert done.code == 2
    assert not (tmp_path / "champions").exists()
