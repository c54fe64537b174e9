"""What all tests share."""

from __future__ import annotations

import os

# several test runs on one machine: waiting threads of XGBoost and OpenBLAS would otherwise spin and take the cores from each other
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
