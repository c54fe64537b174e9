"""The page at `/`: the routes and where their documentation is. It loads nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from html import escape

from serving.endpoints import ENDPOINTS

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Qianmian</title>
<style>body {{ font: 16px/1.5 sans-serif; margin: 3em auto; max-width: 48em }} td {{ padding-right: 1em }}</style>
</head><body>
<h1>Qianmian</h1>
<table>{rows}</table>
<p><a href="readyz">/readyz</a> says whether the models are loaded, <a href="metrics">/metrics</a> has the Prometheus
metrics, and <a href="docs.json">/docs.json</a> is the OpenAPI document with every request and response.</p>
</body></html>
"""


@cache
def index_page() -> bytes:
    """The page as HTML."""
    rows = "".join(
        f"<tr><td><code>POST /v1{escape(endpoint.route)}</code></td><td>{escape(endpoint.summary)}</td></tr>"
        for endpoint in ENDPOINTS.values()
    )
    return PAGE.format(rows=rows).encode()
