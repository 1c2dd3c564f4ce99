"""nginx from Debian's package, with a folder and ports of its own: it touches nothing below /etc and /var."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from app.config import ROOT

# A user's PATH has no /usr/sbin on Debian.
NGINX = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
DEPLOYED = ROOT / "deploy" / "nginx"


def nginx_command(folder: Path, http: str) -> tuple[str, ...]:
    """Write a configuration with these directives of the context `http` into `folder`, and return the command that
    starts nginx with it, in the foreground. The log is `folder`/error.log. SIGQUIT finishes its requests, SIGTERM ends
    them. Raises RuntimeError if nginx is not installed.
    """
    if NGINX is None:
        raise RuntimeError("nginx is not installed: apt-get install nginx-light")
    folder.mkdir(exist_ok=True)
    configuration = folder / "nginx.conf"
    configuration.write_text(_main(folder, http))
    return (NGINX, "-p", str(folder), "-c", str(configuration))


def gateway(*, listen: str, service: Sequence[str], streams: Sequence[str], main: Sequence[str], log: Path) -> str:
    """The gateway of deploy/nginx with these addresses, each `host:port`, and this access log."""
    upstreams = {"wallet_service": service, "wallet_streams": streams, "main_application": main}
    text = "".join(
        f"upstream {name} {{\n" + "".join(f"server {address};\n" for address in addresses) + "}\n"
        for name, addresses in upstreams.items()
    )
    for line in (DEPLOYED / "wallet.conf").read_text().splitlines():
        match line.split():
            case ["include", "snippets/wallet-upstreams.conf;"]:
                pass
            case ["include", snippet]:
                text += f"include {DEPLOYED}/{snippet}\n"
            case ["listen", _]:
                text += f"listen {listen};\n"
            case ["access_log", _, form]:
                text += f"access_log {log} {form}\n"
            case _:
                text += f"{line}\n"
    return text


def _main(folder: Path, http: str) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.geteuid() == 0 else ""  # Else its workers could not enter a private folder.
    return (
        f"{user}daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nworker_processes 1;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{temporary}{http}}}\n"
    )
