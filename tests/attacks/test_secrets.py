"""Passwords and keys are in nothing that is printed, logged, answered or stored, whatever fails."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import run
from features.event_log import open_log
from qianmian.errors import ConfigError, QianmianError, UsageError
from qianmian.redaction import environment_secrets, redact, redact_logs, secrets_of
from qianmian.workspace import Workspace
from serving.server import environment, running

SECRET = "Pl4nted-Secret"
NOWHERE = "127.0.0.1:9"


@pytest.fixture
def secret_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Sets environment variables whose secrets `redact` knows."""
    make = logging.getLogRecordFactory()
    environment_secrets.cache_clear()
    yield monkeypatch
    environment_secrets.cache_clear()
    logging.setLogRecordFactory(make)


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "shop").create()


# ---- the function ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"redis://u:{SECRET}@h:6379/0",
        f"redis://:{SECRET}@h",
        f"rediss://u:{SECRET}@h, and http://h/",
        f"'postgresql+psycopg://u:{SECRET}/#?@h/db'",
        f"mysql://u:{SECRET}@@h/db",
        f"POSTGRESQL://u:{SECRET}@h/db",
        f"https://h/?user=u&password={SECRET}&x=1",
        f"https://h/?access_token={SECRET}",
    ],
)
def test_a_url_is_shown_without_its_password(text: str) -> None:
    shown = redact(text)
    assert SECRET not in shown
    assert "***" in shown
    assert "//h" in shown or "@h" in shown


@pytest.mark.parametrize(
    "text",
    [
        "see https://example.org/a:b@c d",
        "postgresql://reader:${SHOP_PASSWORD}@host/database",
        "redis://host:6379/0",
        "ann@example.org: 3 rows",
        "filters.brand=a",
        "",
    ],
)
def test_a_text_without_a_password_stays(text: str) -> None:
    assert redact(text) == text or text.startswith("see")


@pytest.mark.parametrize("text", ["a://b:", "a" * 7, "?&password", "://@:", "x@", "?password="])
def test_a_long_text_takes_no_time(text: str) -> None:
    """Errors repeat parts of requests."""
    begun = time.process_time()
    redact("a://" + text * 150_000 + "@")
    assert time.process_time() - begun < 2


def test_secrets_of_the_environment() -> None:
    found = secrets_of(
        {
            "MLFLOW_TRACKING_URI": "postgresql://mlflow:a-long%2Fpassword@db",
            "QIANMIAN_PII_KEY": "k" * 32,
            "SHOP_PASSWORD": "shop-password",
            "SHORT_TOKEN": "abc",
            "HOME": "/home/somebody",
            "URL": "https://example.org/path",
        }
    )
    assert set(found) == {"a-long%2Fpassword", "a-long/password", "k" * 32, "shop-password"}


def test_errors_and_log_records_are_redacted(secret_environment) -> None:
    secret_environment.setenv("QIANMIAN_PII_KEY", SECRET)
    for error in (
        QianmianError(f"no {SECRET}", where=f"redis://u:{SECRET}@h", got={"x": SECRET}, hint=f"not {SECRET}"),
        ConfigError([f"wrong: {SECRET}"], where="a.yaml"),
    ):
        assert SECRET not in f"{error} {error!r} {error.args} {error.as_dict()} {vars(error).get('problems')}"
    redact_logs()
    redact_logs()  # only once
    stream = io.StringIO()
    logger = logging.Logger("attack")
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("a %s, %d %s", f"redis://u:{SECRET}@h", 7, [SECRET])
    logger.error(f"key {SECRET}")
    try:
        raise ValueError(f"port {SECRET}")
    except ValueError:
        logger.exception("failed")
    assert SECRET not in stream.getvalue()
    assert "7 ['***']" in stream.getvalue()
    assert "ValueError: port ***" in stream.getvalue()


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "arguments"),
    [
        ("MLFLOW_TRACKING_URI", f"http://u:{SECRET}@{NOWHERE}", ["models", "list"]),
        ("MLFLOW_TRACKING_URI", f"nothing://u:{SECRET}@h/db", ["models", "list"]),
        ("MLFLOW_TRACKING_URI", f"postgresql://u:{SECRET}@{NOWHERE}/db", ["models", "list"]),
        ("MLFLOW_TRACKING_URI", f"postgresql://u:{SECRET}@h:{SECRET}/db", ["models", "list"]),
        ("MLFLOW_TRACKING_URI", f"http://u:{SECRET}@{NOWHERE}", ["doctor"]),
        ("QIANMIAN_ONLINE_STORE", f"redis://u:{SECRET}@{NOWHERE}/0", ["ingest", "events"]),
        ("QIANMIAN_ONLINE_STORE", f"redis://u:{SECRET}/%23@{NOWHERE}/0", ["ingest", "events"]),
        ("QIANMIAN_ONLINE_STORE", f"redis://u:{SECRET}#x@{NOWHERE}/0", ["doctor"]),
        ("QIANMIAN_ONLINE_STORE", f"nothing://u:{SECRET}@h", ["ingest", "events"]),
        ("QIANMIAN_PII_KEY", "Pl4nted", ["ingest", "synthetic", "--customers", "5"]),
    ],
)
def test_a_command_that_fails_shows_no_secret(variable, value, arguments, shop, secret_environment, capfd, monkeypatch):
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 0)  # it waits for minutes
    secret_environment.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    secret_environment.setenv(variable, value)
    code = run([*arguments, "--workspace", str(shop.root), "--json", "--debug"])
    out, err = capfd.readouterr()
    assert code in (1, 2, 3), out
    assert json.loads(out)
    assert "Traceback" in err or arguments == ["doctor"]
    assert "Pl4nted" not in out + err


def test_the_settings_are_redacted_too(shop, secret_environment, capfd):
    shop.config_file.write_text(f"serving: {{online_store: 'redis://u:{SECRET}@{NOWHERE}'}}")
    for command in (["ingest", "events"], ["doctor"]):
        assert run([*command, "--workspace", str(shop.root), "--json", "--debug"]) > 0
        shop.config_file.write_text(f"serving: {{online_store: 'redis://u:{SECRET}#@{NOWHERE}'}}")
    out, err = capfd.readouterr()
    assert SECRET not in out + err


def test_a_url_that_cannot_be_read_is_a_mistake_of_its_writer():
    with pytest.raises(UsageError, match="cannot be read") as caught:
        open_log(f"redis://u:{SECRET}#x@{NOWHERE}/0")
    assert SECRET not in str(caught.value)


# ---- what is written -------------------------------------------------------------------------------------------------


def holding(folder: Path, secret: str) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


@pytest.mark.slow
def test_a_server_and_its_files_show_no_secret(shop, secret_environment, tmp_path):
    """The event log cannot be reached; a model is trained and served."""
    secret_environment.setenv("QIANMIAN_PII_KEY", SECRET + "-of-personal-data")
    secret_environment.setenv("SHOP_PASSWORD", SECRET)
    command = [sys.executable, "-m", "cli.main"]
    for arguments in (["ingest", "synthetic", "--customers", "200", "--days", "200"], ["train", "churn"]):
        done = subprocess.run([*command, *arguments, "--workspace", shop.root], capture_output=True, text=True)
        assert done.returncode in (0, 4), done.stderr
        assert SECRET not in done.stdout + done.stderr
    log, answers = tmp_path / "log", []
    variables = environment(shop, online_store=f"redis://u:{SECRET}@{NOWHERE}/0")
    with (
        log.open("wb") as handle,
        running(shop, env={**variables, "BENTOML_HOME": str(tmp_path / "home")}, log=handle) as url,
    ):
        event = {"event_id": "e", "user_id": "u", "user_source": "s", "event_type": "view", "ts": "2024-08-02T12:00:00"}
        for path, body in (
            ("/v1/events", {"events": [event]}),
            ("/v1/churn", {"user_ids": ["u"]}),
            ("/v1/profile", {"user_id": "u"}),
            *((path, None) for path in ("/readyz", "/metrics", "/docs.json", "/")),
        ):
            data = None if body is None else json.dumps(body).encode()
            try:
                with urllib.request.urlopen(urllib.request.Request(url + path, data), timeout=30) as answer:
                    answers.append(answer.read())
            except urllib.error.HTTPError as error:
                answers.append(error.read())
    assert b'"storage"' in answers[0]
    assert SECRET.encode() not in b"".join(answers)
    assert SECRET not in log.read_text()
    assert holding(shop.root, SECRET) == []
