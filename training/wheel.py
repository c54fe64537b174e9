"""The code that a registered model needs, as a wheel that is logged with the model, and the libraries beside it.

The project is in no package index, so a requirement by its name could not be installed. A wheel is a zip file (the
Binary Distribution Format of PyPA) that pip installs without an index. It holds what predicts, without the training and
the server, and without the C extensions: models compute the same without them, and the wheel fits every platform.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from functools import cache
from pathlib import Path

import features
import models
import qianmian
from qianmian import __version__

PACKAGES = (qianmian, features, models)
NAME = f"qianmian-{__version__}-py3-none-any.whl"
SUFFIXES = (".py", ".yaml", ".typed")
# what predicts with any kind of model; `implicit` and LightFM only train, and XGBoost has another name on macOS
LIBRARIES = (
    "duckdb",
    "ibis-framework",
    "mlflow",
    "numpy",
    "orjson",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "threadpoolctl",
    "xgboost-cpu",
    "xgboost",
)
METADATA = "Metadata-Version: 2.1\nName: qianmian\nVersion: {}\nRequires-Python: >=3.11\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same code gives the same wheel


def requirements() -> list[str]:
    """Return the requirements of a registered model: the wheel, relative to the model, and the installed libraries."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [*found, f"code/{NAME}"]


def write_wheel(folder: Path) -> Path:
    """Write the wheel into a folder and return its path."""
    path = folder / NAME
    path.write_bytes(_wheel())
    return path


def wheels_below(folder: Path) -> frozenset[Path]:
    """Return the wheels that were logged with models below a folder.

    They hold code and no data, and code has words that may be the id of a customer, such as ``anonymous``.
    """
    return frozenset(folder.rglob("code/qianmian-*-py3-none-any.whl"))


@cache
def _wheel() -> bytes:
    """The content of the wheel, made once in a process."""
    content = {
        file.relative_to(root.parent).as_posix(): file.read_bytes()
        for root in (Path(package.__file__ or "").parent for package in PACKAGES)
        for file in sorted(root.rglob("*"))
        if file.suffix in SUFFIXES
    }
    info = f"qianmian-{__version__}.dist-info"
    content[f"{info}/METADATA"] = METADATA.format(__version__).encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: qianmian\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
