"""``galpaca chat --web``: asks a model on a page that this machine alone can open, and that needs no other."""

from __future__ import annotations

import os
import socket
import threading

from galpaca.app.asked_model import ModelOptions
from galpaca.app.console import make_console
from galpaca.errors import InputError, StoppedBySignal

HOST = "127.0.0.1"
DEFAULT_PORT = 7860


def chat_page(options: ModelOptions, port: int) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        InputError: Gradio is not installed, the port is taken, or whatever is wrong with the options or the model.
    """
    options.check()
    check_port(port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from galpaca.app.chat.blocks import CSS, build_page, theme
    except ImportError as error:
        raise InputError(
            "Gradio is not installed, which makes the page",
            where="--web",
            why=str(error),
            fix="pip install 'galpaca[web]'",
        ) from None
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
        raise InputError(f"the page cannot be served: {error}", where=f"--port {port}", fix=_another_port()) from None
    console.print(f"http://{HOST}:{port} asks {loaded.name} ({loaded.place}); Ctrl-C ends it", markup=False)
    try:
        threading.Event().wait()
    except (StoppedBySignal, KeyboardInterrupt):
        console.print("ended")
    finally:
        page.close(verbose=False)


def check_port(port: int) -> None:
    """Raises:
    InputError: no such port, or another program has it; a free one is named.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"{port} is no port", where="--port", fix="1024 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just given back is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"the port cannot be had: {error.strerror}", where=f"--port {port}", fix=_another_port()
            ) from None


def _another_port() -> str:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return f"--port {probe.getsockname()[1]}, which is free"
