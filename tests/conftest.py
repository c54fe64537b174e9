"""What all tests share."""

from __future__ import annotations

import os

# The tests run in one process a core, on small data. More threads than that gain nothing: those of OpenBLAS and XGBoost that wait for
# each other would spin and take the cores from the other processes. Set before either library is loaded.
for name, value in {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)
