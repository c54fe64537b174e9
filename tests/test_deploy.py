"""The files of deploy/: their commands, settings, variables, ports and paths exist, and what can be run is run."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from deploy.local_servers import PostgresServer, RedisServer, free_port
from features.data.pii_key import KEY_VARIABLE
from features.event_log.location import ENVIRONMENT_VARIABLE as STORE_VARIABLE
from qianmian.settings import ServingSettings, Settings
from qianmian.workspace import ENVIRONMENT_VARIABLE
from serving.security.key_file import FILE_VARIABLE
from serving.server import STOP_SECONDS, environment

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
PAGES = ("docs/deploy.md", "docs/operations.md")
UNITS = sorted((DEPLOY / "systemd").iterdir())
OURS = {KEY_VARIABLE, FILE_VARIABLE, STORE_VARIABLE, ENVIRONMENT_VARIABLE, "MLFLOW_TRACKING_URI"}
OF_BENTOML = {name for name in environment(None) if name.startswith("BENTOML_")}
SERVING = ServingSettings()
ENDS_AFTER = SERVING.shutdown_seconds + STOP_SECONDS  # a server that was told to stop
ALARMS = [
    "QianmianNotReady",
    "QianmianErrors",
    "QianmianSlow",
    "QianmianStaleProfiles",
    "QianmianStaleModels",
    "QianmianEventsLost",
    "QianmianEventsRefused",
    "QianmianFallbacks",
    "QianmianReloadRefused",
    "QianmianQueueFull",
]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def unit(path: Path) -> list[tuple[str, str]]:
    """The settings of a systemd unit, in their order; some appear more than once."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def manifests() -> Iterator[dict[str, Any]]:
    for path in sorted((DEPLOY / "kubernetes").iterdir()):
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod with its containers."""
    for manifest in manifests():
        if "template" in manifest.get("spec", {}):
            pod = manifest["spec"]["template"]["spec"]
            yield from ((pod, container) for container in pod["containers"])


# ---- systemd ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in UNITS if path.suffix == ".service"], ids=lambda path: path.name)
def test_units_run_commands_that_exist_with_options_that_exist(path: Path) -> None:
    commands = [shlex.split(value) for name, value in unit(path) if name == "ExecStart"]
    assert commands
    group = typer.main.get_command(app)
    for program, verb, *arguments in commands:
        assert program == "/opt/qianmian/.venv/bin/qianmian"
        command = group.get_command(None, verb)  # type: ignore[attr-defined, arg-type]
        assert command is not None, verb
        while hasattr(command, "get_command") and arguments:
            command = command.get_command(None, arguments.pop(0))
        command.make_context(verb, arguments)  # an error for options that do not exist


def test_the_server_has_time_to_answer_what_it_has() -> None:
    settings = dict(unit(DEPLOY / "systemd" / "qianmian.service"))
    assert float(settings["TimeoutStopSec"]) > ENDS_AFTER
    assert settings["KillMode"] == "mixed", "SIGTERM to all processes would end workers that the server still needs"


def test_each_timer_has_its_service() -> None:
    timers = [path for path in UNITS if path.suffix == ".timer"]
    assert timers
    assert all(path.with_suffix(".service").exists() for path in timers)


def test_systemd_accepts_the_units() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(["systemd-analyze", "verify", *UNITS], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if line.startswith(("qianmian", str(DEPLOY)))]
    assert [line for line in complaints if "is not executable: No such file" not in line] == []


# ---- containers ------------------------------------------------------------------------------------------------------


def test_the_compose_file_names_what_exists() -> None:
    services = yaml.safe_load(text("deploy/compose.yaml"))["services"]
    assert services["replica-1"] == services["replica-2"]
    replica = services["replica-1"]
    assert FILE_VARIABLE in replica["environment"]
    assert set(replica["environment"]) <= OURS | OF_BENTOML
    assert "services.qianmian.workers=" in replica["environment"]["BENTOML_CONFIG_OPTIONS"]
    assert replica["image"].startswith("qianmian:")
    assert replica["command"][0] == "serve"
    port = replica["command"][replica["command"].index("--port") + 1]
    assert replica["expose"] == [port]
    assert f"127.0.0.1:{port}/readyz" in replica["healthcheck"]["test"][-1]
    assert float(replica["stop_grace_period"].removesuffix("s")) > ENDS_AFTER
    assert set(replica["depends_on"]) <= set(services)
    assert f"@{'redis'}:6379" in replica["environment"][STORE_VARIABLE]
    assert_durable(" ".join(services["redis"]["command"]))
    for volume in services["nginx"]["volumes"]:
        source = volume.split(":")[0]
        assert source == "./tls" or (DEPLOY / source).exists(), source


def assert_durable(command: str) -> None:
    """As the event log asks of a Redis server when it is opened."""
    assert "--appendonly yes --appendfsync always --maxmemory-policy noeviction" in command


def test_the_kubernetes_manifests_name_what_exists() -> None:
    kinds = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests()]
    assert len(set(kinds)) == len(kinds)
    (pod, server), (_, redis_server) = containers()
    names = {variable["name"] for variable in server["env"]}
    assert {STORE_VARIABLE, FILE_VARIABLE} <= names
    assert names <= OURS | OF_BENTOML
    assert server["args"] == ["serve", "--host", "0.0.0.0", "--port", str(server["ports"][0]["containerPort"])]
    assert pod["terminationGracePeriodSeconds"] > ENDS_AFTER
    assert {server[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness")} == {"/readyz"}
    assert server["livenessProbe"]["httpGet"]["path"] == "/livez"
    probe = server["readinessProbe"]
    drain = re.search(r"set it to (\d+)", text("deploy/kubernetes/qianmian.yaml"))
    assert drain is not None
    assert int(drain[1]) >= probe["periodSeconds"] * probe["failureThreshold"] + 2
    assert_durable(redis_server["args"][0])
    labels = [manifest["spec"]["selector"] for manifest in manifests() if manifest["kind"] == "Service"]
    assert labels == [{"app": "qianmian"}, {"app": "redis"}]


# ---- the pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_name_files_settings_and_variables_that_exist(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(page)):
        assert link.startswith("http") or (ROOT / "docs" / link).exists(), link
    for section, name in re.findall(r"`(\w+)\.([a-z_]+)`", text(page)):
        if section in Settings.model_fields:
            assert name in Settings.model_fields[section].annotation.model_fields, f"{section}.{name}"  # type: ignore[union-attr]
    for path in re.findall(r"`((?:tests|deploy|benchmarks)/[\w./]+)`", text(page)):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"\b(?:QIANMIAN|MLFLOW)_[A-Z_]+\b", text(page))) <= OURS


def test_every_alarm_is_explained() -> None:
    rows = re.findall(r"^\| (Qianmian\w+) \|(.*)\|$", text("docs/operations.md"), re.MULTILINE)
    assert [name for name, _ in rows] == ALARMS
    assert all(len(cell.strip()) > 20 for _, row in rows for cell in re.split(r"(?<!\\)\|", row))


# ---- what can be run -------------------------------------------------------------------------------------------------


def test_nginx_conf_fits_the_limits_of_the_server() -> None:
    conf = text("deploy/nginx.conf")
    assert re.search(r"client_max_body_size 1m;", conf)
    assert SERVING.max_body_bytes <= 1_048_576
    assert re.search(r"location / \{\s*return 404;", conf), "only /v1/ is public"
    assert re.search(r"location = /v1/erase \{\s*return 404;", conf), "nobody erases customers from outside"


class Backend:
    """A server that says its name, and can break off: what nginx passes requests to."""

    def __init__(self, name: str) -> None:
        backend = self
        self.ended, self.status = False, 200

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                if backend.ended:  # as a process that is killed with open connections
                    self.close_connection = True
                    return
                headers = dict(self.headers)
                body = json.dumps({"server": name, "path": self.path, "headers": headers}).encode()
                self.send_response(backend.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.ended = True
        self.server.shutdown()
        self.server.server_close()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own for the name in nginx.conf, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "qianmian.example.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("qianmian.example.com")]), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    files[1].write_bytes(pem)
    return files


@contextmanager
def nginx(folder: Path, ports: list[int]) -> Iterator[int]:
    """nginx with deploy/nginx.conf, whose addresses and paths are those of the test; yields its port."""
    program = os.environ.get("NGINX_PROGRAM") or shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    public, (chain, key) = free_port(), certificate(folder)
    site = text("deploy/nginx.conf").replace("listen 443 ssl", f"listen 127.0.0.1:{public} ssl")
    for address, port in zip(("10.0.0.11:3000", "10.0.0.12:3000"), ports, strict=True):
        site = site.replace(address, f"127.0.0.1:{port}")
    site = site.replace("/etc/ssl/qianmian/certificate.pem", str(chain)).replace("/etc/ssl/qianmian/key.pem", str(key))
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/errors;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{site}\n}}\n"
    )
    process = subprocess.Popen([program, "-e", f"{folder}/errors", "-c", f"{folder}/nginx.conf", "-p", str(folder)])
    try:
        yield public
    finally:
        process.terminate()
        process.wait(20)


def test_nginx_ends_tls_and_passes_by_a_server_that_is_gone(tmp_path: Path) -> None:
    backends = [Backend("A"), Backend("B")]
    with nginx(tmp_path, [backend.port for backend in backends]) as port:
        context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        context.check_hostname = False

        def post(path: str, body: bytes = b"{}") -> tuple[int, Any]:
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
            connection.request("POST", path, body, {"Host": "qianmian.example.com", "Authorization": "Bearer key"})
            response = connection.getresponse()
            answer = response.read()
            connection.close()
            return response.status, json.loads(answer) if response.status == 200 else None

        for _ in range(200):  # until it listens
            try:
                post("/v1/churn")
                break
            except OSError:
                threading.Event().wait(0.05)
        answers = [post("/v1/churn") for _ in range(20)]
        assert {status for status, _ in answers} == {200}
        assert {answer["server"] for _, answer in answers} == {"A", "B"}
        headers = answers[0][1]["headers"]
        assert (headers["Authorization"], headers["X-Forwarded-Proto"]) == ("Bearer key", "https")
        assert [post(path)[0] for path in ("/metrics", "/v1/erase", "/docs.json", "/")] == [404] * 4
        assert post("/v1/events", b"x" * 1_100_000)[0] == 413
        backends[0].status = 503  # it has no models yet, or its event log is away
        assert {post("/v1/events")[0] for _ in range(8)} == {200, 503}
        assert {post("/v1/churn")[0] for _ in range(50)} == {200}
        backends[0].stop()
        answers = [post("/v1/events") for _ in range(50)]
        assert {status for status, _ in answers} == {200}
        assert {answer["server"] for _, answer in answers} == {"B"}
    backends[1].stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_replicas_act_as_one() -> None:
    if not (PostgresServer.installed() and RedisServer.installed()):
        pytest.skip("PostgreSQL or Redis is not installed (make servers)")
    done = subprocess.run(
        [sys.executable, DEPLOY / "two_replicas.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
