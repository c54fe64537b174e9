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
from serving.fast_path import FastPath
from serving.http import UniformErrorMiddleware, make_app
from serving.loading import BackgroundLoader

EVERY_URL = ".*"
BENTO_FILE = Path(__file__).resolve().parents[2] / "bento.yaml"  # a Bento has the sources in src/ beside bento.yaml


def load() -> Champions:
    """Load the champions that this process serves."""
    if BENTO_FILE.exists():
        from serving.package import bento_champions

        return load_from_folder(bento_champions(BENTO_FILE))
    workspace = Workspace.locate()
    return load_from_workspace(workspace, load_settings(workspace.config_file))


def loaded_once() -> Path:
    """File that says that a worker of this server has loaded its models; BentoML empties its folder at each start."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    return Path(BentoMLContainer.prometheus_multiproc_dir.get(), "qianmian-loaded")


LOADER = BackgroundLoader(load, loaded=lambda: loaded_once().touch())
LOAD_SECONDS = 60.0


def needs_middlewares() -> bool:
    """Whether BentoML is configured to do something for every request: CORS headers, an access log or trace spans."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    server, tracing = BentoMLContainer.config.api_server, BentoMLContainer.config.tracing
    return bool(
        server.http.cors.enabled.get()
        or server.logging.access.enabled.get()
        or (tracing.exporter_type.get() and tracing.excluded_urls.get() != EVERY_URL)
    )


class UniformService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service with uniform errors, also for errors raised by BentoML, and with the fast path."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """Wrap the application; a middleware would not see the errors of BentoML's timeout and concurrency limits."""
        app = UniformErrorMiddleware(super().to_asgi(is_main=is_main), LOADER)
        return FastPath(app, LOADER, answers=not needs_middlewares())


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
    tracing={"excluded_urls": EVERY_URL},
    envs=SINGLE_THREADED,
)
@bentoml.asgi_app(make_app(LOADER), path="/v1", name="v1")
class Qianmian:
    """Recommendations, churn risks, profiles and lookalikes from the models in production."""

    def __init__(self) -> None:
        LOADER.start()
        # a worker that replaces another one accepts no connection before it can answer, because others can
        if loaded_once().exists():
            LOADER.wait(LOAD_SECONDS)

    async def __is_ready__(self) -> bool:
        return LOADER.why_not_ready() is None
