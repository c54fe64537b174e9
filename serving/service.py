"""The BentoML service. The one module that does something when imported: BentoML finds the service as a module's attribute.

The champions come from the model a Bento carries when this file lies in one, else from the workspace
(``QIANMIAN_WORKSPACE`` or ``./workspace``).
"""

from pathlib import Path
from typing import Any

import bentoml

from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.champions import Champions, load_from_folder, load_from_workspace
from serving.http import UniformErrorMiddleware, make_app
from serving.loading import BackgroundLoader

BENTO_FILE = (
    Path(__file__).resolve().parents[2] / "bento.yaml"
)  # a Bento keeps the sources in src/ beside its bento.yaml


def load() -> Champions:
    """The champions this process serves."""
    if BENTO_FILE.exists():
        from serving.package import bento_champions

        return load_from_folder(bento_champions(BENTO_FILE))
    workspace = Workspace.locate()
    return load_from_workspace(workspace, load_settings(workspace.config_file))


LOADER = BackgroundLoader(load)


class UniformService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service whose every error, BentoML's own included, has one shape."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """BentoML's application inside the wrapper; a middleware would sit inside its time and concurrency limits and miss theirs."""
        return UniformErrorMiddleware(super().to_asgi(is_main=is_main), LOADER)


# one request is one thread's work: numeric libraries that each wake a pool for it made a lookalike answer 20 times slower
SINGLE_THREADED = [
    {"name": name, "value": "1"} for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
]


# spans nobody exports cost a fifth of a request; BENTOML_CONFIG_OPTIONS with a tracing.exporter_type may take excluded_urls back
@bentoml.service(
    name="qianmian",
    service_class=UniformService,
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    envs=SINGLE_THREADED,
)
@bentoml.asgi_app(make_app(LOADER), path="/v1", name="v1")
class Qianmian:
    """Recommendations, churn risks, profiles and lookalikes from the models in production."""

    def __init__(self) -> None:
        LOADER.start()

    async def __is_ready__(self) -> bool:
        return LOADER.why_not_ready() is None
