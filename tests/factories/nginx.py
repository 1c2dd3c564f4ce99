"""nginx as the documented deployment has it: one origin for a page's files and the API, and gzip."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from tests.factories.ports import free_port
from tests.factories.served import wait_until_it_listens

NGINX = which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
PATIENCE_SECONDS = 10


@contextmanager
def one_origin(api_url: str, folder: Path, files: Mapping[str, Path]) -> Iterator[str]:
    """Serve the API at /api/, /.well-known/ and /openapi.json, and each folder of `files` at its path. Yields
    the URL.
    """
    port = free_port()
    places = "".join(f"location {path} {{ alias {place}/; }}\n" for path, place in files.items())
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1; user root;\n"
        "events { worker_connections 256; }\n"
        "http {\n"
        "types { text/html html; text/javascript js mjs; }\n"
        f"access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n"
        "gzip on; gzip_types application/json; gzip_min_length 1; gzip_proxied any;\n"
        f"server {{ listen 127.0.0.1:{port};\n"
        f"proxy_set_header Host $http_host; location ~ ^/(api/|\\.well-known/|openapi) {{ proxy_pass {api_url}; }}\n"
        f"{places}}}\n}}\n"
    )
    assert NGINX
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(port, process)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
