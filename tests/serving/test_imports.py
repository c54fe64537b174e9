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
# databases; and what trains models, which is imported when a model that needs it is loaded
NOT_NEEDED = ("duckdb", "ibis", "implicit", "lightfm", "mlflow", "pandas", "scipy.stats", "sklearn", "xgboost")


def test_a_worker_imports_neither_databases_nor_what_trains_models():
    program = f"import sys, {', '.join(WORKER)}; print(*sorted(set({NOT_NEEDED!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
