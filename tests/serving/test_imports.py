"""What a worker of the server does not need is not in its memory."""

from __future__ import annotations

import subprocess
import sys

WORKER = (  # what a worker imports before it loads a model
    "serving.service",
    "serving.following",
    "serving.loading",
    "serving.endpoints",
    "serving.fast_path",
    "serving.http",
    "serving.connections",
)
NOT_NEEDED = ("duckdb", "ibis")


def test_a_worker_imports_no_database():
    program = f"import sys, {', '.join(WORKER)}; print(*sorted(set({NOT_NEEDED!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
