"""`qianmian models` on a workspace without models."""

from __future__ import annotations

import pytest


def test_an_empty_registry_is_no_error(qianmian, shop):
    done = qianmian("models", "list", "--workspace", shop)
    assert done.code == 0
    assert "qianmian train all" in done.out
    assert qianmian("models", "history", "--workspace", shop, "--json").json["events"] == []
    assert not (shop / "mlflow.db").exists()  # reading creates nothing


@pytest.mark.parametrize(
    "arguments",
    [["show", "churn"], ["history", "churn"], ["promote", "churn", "one"], ["promote", "churn", "0"]],
    ids=" ".join,
)
def test_a_missing_model_is_exit_2(qianmian, shop, arguments):
    done = qianmian("models", *arguments, "--workspace", shop)
    assert done.code == 2
    assert "Fix:" in done.err


def test_an_export_without_champions_is_rejected(qianmian, shop, tmp_path):
    done = qianmian("models", "export", "--out", tmp_path / "champions", "--workspace", shop)
    assert done.code == 2
    assert not (tmp_path / "champions").exists()
