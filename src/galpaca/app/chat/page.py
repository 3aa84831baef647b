"""``galpaca chat --web``: a chat page on localhost that loads nothing from other hosts."""

import errno
import os
import socket
import threading

from galpaca.app.console import make_console
from galpaca.app.model_options import ModelOptions
from galpaca.errors import InputError, StoppedBySignal

HOST = "127.0.0.1"
DEFAULT_PORT = 7860


def chat_page(options: ModelOptions, port: int) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        InputError: Gradio is not installed, the port is in use, or the options or the model are invalid.
    """
    options.check()
    check_port(port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from galpaca.app.chat.blocks import CSS, build_page, theme
    except ImportError as error:
        fix = "pip install 'galpaca[web]'"
        raise InputError("Gradio is not installed", where="--web", why=str(error), fix=fix) from None
    console = make_console()
    loaded, settings = options.load(console)
    page = build_page(loaded, settings)
    try:
        page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            theme=theme(),
            css=CSS,
        )
    except OSError as error:
        raise InputError(f"cannot serve the page: {error}", where=f"--port {port}", fix=_another_port()) from None
    served = f"{loaded.name} ({loaded.device_dtype})"
    console.print(f"http://{HOST}:{port} serves {served}; press Ctrl-C to stop", markup=False)
    try:
        threading.Event().wait()
    except (StoppedBySignal, KeyboardInterrupt):
        console.print("stopped")
    finally:
        page.close(verbose=False)


def check_port(port: int) -> None:
    """Checks that the page can be served on this port.

    Raises:
        InputError: not a valid port, or in use; the message names a free one.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"must be in [1, 65535], got {port}", where="--port", fix="--port 1024 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just given back is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            what = f"port {port} is already in use" if taken else f"cannot bind port {port}: {error.strerror}"
            raise InputError(what, where="--port", fix=_another_port()) from None


def _another_port() -> str:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return f"--port {probe.getsockname()[1]}, which is free"
