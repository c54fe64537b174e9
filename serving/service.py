"""The BentoML service.

Importing this module creates the service, because BentoML finds it as a module attribute. The champions come from the
Bento that contains this file, else from the workspace (``QIANMIAN_WORKSPACE`` or ``./workspace``).
"""

from pathlib import Path
from typing import Any

import bentoml

from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.champions import Champions, load_from_folder, load_from_workspace
from serving.http import UniformErrorMiddleware, make_app
from serving.loading import BackgroundLoader

BENTO_FILE = Path(__file__).resolve().parents[2] / "bento.yaml"  # a Bento has the sources in src/ beside bento.yaml


def load() -> Champions:
    """Load the champions that this process serves."""
    if BENTO_FILE.exists():
        from serving.package import bento_champions

        return load_from_folder(bento_champions(BENTO_FILE))
    workspace = Workspace.locate()
    return load_from_workspace(workspace, load_settings(workspace.config_file))


LOADER = BackgroundLoader(load)


class UniformService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service with uniform errors, also for errors raised by BentoML."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """Wrap the application; a middleware would not see the errors of BentoML's timeout and concurrency limits."""
        return UniformErrorMiddleware(super().to_asgi(is_main=is_main), LOADER)


# Starting the thread pools of numeric libraries for each request made lookalike requests 20 times slower.
SINGLE_THREADED = [
    {"name": name, "value": "1"} for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
]


# Trace spans cost a fifth of a request even if they are not exported. To enable tracing, set tracing.exporter_type and
# an empty tracing.excluded_urls in BENTOML_CONFIG_OPTIONS.
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
