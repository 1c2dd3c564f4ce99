"""nginx as the documented deployment has it: the gateway of deploy/nginx, and one origin for a page's files and the API
with gzip.
"""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.support.demo.nginx import NGINX, nginx_command
from tests.factories.ports import free_port
from tests.factories.served import wait_until_it_listens

PATIENCE_SECONDS = 10
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx-light")


@contextmanager
def running_nginx(folder: Path, http: str, port: int) -> Iterator[str]:
    """nginx with these directives of the context `http`, which listen on this port. Yields its URL."""
    process = subprocess.Popen(nginx_command(folder, http), stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(port, process)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@contextmanager
def one_origin(api_url: str, folder: Path, files: Mapping[str, Path]) -> Iterator[str]:
    """Serve the API at /api/, /.well-known/ and /openapi.json, and each folder of `files` at its path. Yields
    the URL.
    """
    port = free_port()
    places = "".join(f"location {path} {{ alias {place}/; }}\n" for path, place in files.items())
    http = (
        "types { text/html html; text/javascript js mjs; }\n"
        "gzip on; gzip_types application/json; gzip_min_length 1; gzip_proxied any;\n"
        f"server {{ listen 127.0.0.1:{port};\n"
        f"proxy_set_header Host $http_host; location ~ ^/(api/|\\.well-known/|openapi) {{ proxy_pass {api_url}; }}\n"
        f"{places}}}\n"
    )
    with running_nginx(folder, http, port) as url:
        yield url
