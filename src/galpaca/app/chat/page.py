"""``galpaca chat --web``: a chat page on this machine that loads nothing from other hosts."""

import errno
import os
import secrets
import socket
import threading

from galpaca.app.console import make_console
from galpaca.app.options.models import ModelOptions
from galpaca.errors import InputError, StoppedBySignal

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860
# Of the page, where other machines can open it.
USER, PASSWORD_VARIABLE = "galpaca", "GALPACA_CHAT_PASSWORD"


def chat_page(options: ModelOptions, host: str, port: int) -> None:
    """Serves the page until Ctrl-C.

    Args:
        host: address to listen on. Where other machines reach it, the page asks for a password: that of
            ``GALPACA_CHAT_PASSWORD``, or one that is made and shown.

    Raises:
        InputError: Gradio is not installed, the address is not this machine's or in use, or the options or the model
            are invalid.
    """
    options.check()
    check_address(host, port)
    password = None if _is_loopback(host) else os.environ.get(PASSWORD_VARIABLE) or secrets.token_urlsafe(9)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from galpaca.app.chat.blocks import CSS, build_page, theme
    except ImportError as error:
        fix = "pip install 'galpaca[web]'"
        raise InputError("Gradio is not installed", where="--web", why=str(error), fix=fix) from None
    console = make_console()
    loaded, settings = options.load(console)
    page = build_page(loaded, settings)
    for name in ("NO_PROXY", "no_proxy"):  # Gradio looks whether it answers, which is no affair of a proxy
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), host, "localhost"]))
    try:
        page.launch(
            server_name=host,
            auth=None if password is None else (USER, password),
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            theme=theme(),
            css=CSS,
        )
    except Exception as error:  # Gradio's own are of any class
        raise InputError(f"cannot serve the page: {error}", where=f"--port {port}", fix=_another_port(host)) from None
    served = f"{loaded.name} ({loaded.device_dtype})"
    shown = socket.gethostname() if host == _ANY else host
    console.print(f"http://{shown}:{port} serves {served}; Ctrl-C stops", markup=False)
    if password is not None:
        of = f"of {PASSWORD_VARIABLE}" if os.environ.get(PASSWORD_VARIABLE) else password
        console.print(f"log in as {USER} with the password {of}; what is typed travels unencrypted", markup=False)
    try:
        threading.Event().wait()
    except (StoppedBySignal, KeyboardInterrupt):
        console.print("stopped")
    finally:
        page.close(verbose=False)


_HOSTS = "--host 0.0.0.0 listens on all addresses of this machine, --host 127.0.0.1 is for itself alone"
_ANY = "0.0.0.0"


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.")


def check_address(host: str, port: int) -> None:
    """Checks that the page can be served at this address.

    Raises:
        InputError: not an address of this machine, or not a valid port, or in use; the message names a free one.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"must be in [1, 65535], got {port}", where="--port", fix="--port 1024 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"no such address: {error}", where=f"--host {host}", fix=_HOSTS) from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just given back is free
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise InputError("not an address of this machine", where=f"--host {host}", fix=_HOSTS) from None
            taken = error.errno == errno.EADDRINUSE
            what = f"port {port} is already in use" if taken else f"cannot bind port {port}: {error.strerror}"
            raise InputError(what, where="--port", fix=_another_port(host)) from None


def _another_port(host: str) -> str:
    with socket.create_server((host, 0)) as probe:
        return f"--port {probe.getsockname()[1]}, which is free"
