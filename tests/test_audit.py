"""`make audit`: a vulnerability fails, and where nothing can be looked up it says so."""

from __future__ import annotations

import http.server
import importlib.util
import json
import threading
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)

FLAW = {"id": "PYSEC-1", "aliases": ["GHSA-x"], "fix_versions": ["2.0"], "description": "bad"}
BAD = {"name": "bad", "version": "1.0", "vulns": [FLAW]}
GOOD = {"name": "good", "version": "3.0", "vulns": []}
UNKNOWN = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture(scope="module")
def advisories():
    """URL of an OSV service on this machine that knows one vulnerability of `numpy`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            flaw = {"id": "OSV-7", "summary": "bad", "affected": [], "published": "2024-01-01T00:00:00Z"}
            body = json.dumps({"vulns": [flaw]} if query["package"]["name"] == "numpy" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def ignored(tmp_path: Path) -> Path:
    file = tmp_path / "ignored.toml"
    file.write_text("")
    return file


def lock(folder: Path, *packages: str) -> Path:
    file = folder / "some.lock"
    file.write_text("# a lock file\n" + "".join(f"{name} \\\n    --hash=sha256:{'0' * 64}\n" for name in packages))
    return file


def test_a_vulnerability_fails_unless_it_is_ignored(advisories, ignored, tmp_path, capsys):
    options, locks = ["-s", "osv", "--osv-url", advisories], [lock(tmp_path, "attrs==1.0", "numpy==2.0")]
    assert audit.main(locks, ignored, options) == 1
    assert "numpy 2.0: OSV-7" in capsys.readouterr().out
    ignored.write_text('[OSV-7]\nreason = "not called"\nuntil = 2999-01-01\n')
    assert audit.main(locks, ignored, options) == 0
    assert "2 packages, 0 vulnerabilities, 1 ignored" in capsys.readouterr().out


def test_without_an_advisory_service_it_says_that_nothing_was_audited(ignored, tmp_path, capsys):
    options = ["-s", "osv", "--osv-url", "http://127.0.0.1:9/"]
    assert audit.main([lock(tmp_path, "attrs==1.0")], ignored, options) == 0
    out = capsys.readouterr().out
    assert out.startswith("not audited: ")
    assert out.count("\n") == 1


def test_packages_that_the_service_does_not_know_are_not_audited(capsys):
    assert not audit.is_known([UNKNOWN, UNKNOWN])
    assert audit.is_known([GOOD, UNKNOWN])
    assert audit.report([GOOD, UNKNOWN], {}, []) == 0
    assert "not audited: 1 packages that the advisory service does not know: ours" in capsys.readouterr().out
    assert audit.report([BAD], {}, []) == 1
    assert "bad 1.0: PYSEC-1, fixed in 2.0" in capsys.readouterr().out
    assert audit.report([BAD], {"GHSA-x": "an alias"}, []) == 0


def test_what_is_ignored_has_a_reason_and_an_end(ignored):
    ignored.write_text(
        '[a]\nreason = "r"\nuntil = 2024-01-02\n[b]\nreason = ""\nuntil = 2030-01-01\n[c]\nreason = "r"\n'
    )
    assert audit.read_ignored(ignored, date(2024, 1, 1)) == (
        {"a": "r"},
        [f"{ignored.name}: {name} needs a reason and a date `until`" for name in "bc"],
    )
    found, problems = audit.read_ignored(ignored, date(2024, 1, 2))
    assert not found
    assert "was ignored until 2024-01-02" in problems[0]
    assert not audit.read_ignored(audit.IGNORED_FILE, date(2024, 1, 1))[1]


def test_the_lock_files_are_read_as_they_are():
    for file in audit.LOCKS:
        packages = audit.PACKAGE.findall(file.read_text())
        assert len(packages) > 50
        assert all("--hash=" in package for package in packages)
