"""The peer of the ranker (`peers/rectools_two_stage.py`), run in an environment of its own.

Its packages contradict those of the project (numpy 1 and an older pyarrow), so it gets a virtual environment, which is
made by pip at the first use and kept in the cache folder of the user. The peer and the benchmark exchange files.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import pandas as pd

SCRIPT = Path(__file__).resolve().parent / "peers" / "rectools_two_stage.py"
REQUIREMENTS = ("rectools==0.19.*", "lightgbm>=4,<5", "scikit-learn>=1.5,<2", "pyarrow<21", "numpy<2")
INSTALL_SECONDS = 900
READY = "ready"  # file in an environment that was made completely


def cache_folder() -> Path:
    """Folder of the environments of these requirements and this interpreter."""
    key = hashlib.sha256(" ".join((sys.version, *REQUIREMENTS)).encode()).hexdigest()[:12]
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "qianmian" / f"peer-{key}"


def environment() -> Path | None:
    """Interpreter of the peer's environment, which is made if it is missing; None, with a message, if that fails."""
    folder = cache_folder()
    python = folder / "bin" / "python"
    if (folder / READY).exists():
        return python
    print(f"making the environment of the peer in {folder}: {', '.join(REQUIREMENTS)}", flush=True)
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS],
    ]
    for command in commands:
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS)
            problem = done.stderr.strip()[-500:] if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            print(f"the peer is skipped, because its environment cannot be made:\n{problem}")
            return None
    (folder / READY).touch()
    return python


def peer_lists(lines: pd.DataFrame, items: pd.DataFrame, k: int, seeds: int) -> tuple[pd.DataFrame, common.Cost] | None:
    """Lists of the peer for all users of the lines, and the cost of all seeds; None, with a message, if it is skipped.

    Parameters
    ----------
    lines : pandas.DataFrame
        Order lines: user_id, item_id, ts, quantity, amount, discounted.
    items : pandas.DataFrame
        item_id, type, category, brand, manufacturer_id, department.

    Returns
    -------
    pandas.DataFrame
        Columns seed, user_id, item_id, rank (from 1).
    """
    python = environment()
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.parquet" for name in ("lines", "items", "lists")]
        lines.to_parquet(paths[0], index=False)
        items.to_parquet(paths[1], index=False)
        command = [str(python), "-W", "ignore", str(SCRIPT), *map(str, paths), "--lists", str(k), "--seeds", str(seeds)]
        with_one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # ALS is slower with more

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(command, check=False, capture_output=True, text=True, env=with_one_thread)

        done, cost = common.measure_cost(run)
        if done.returncode:
            print(f"the peer is skipped, because it ended with {done.returncode}:\n{done.stderr[-1000:]}")
            return None
        return pd.read_parquet(paths[2]), cost
