"""``galpaca chat --web``: asks a model on a page that this machine alone can open, and that needs no other."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from galpaca.app.asked_model import ModelOptions
from galpaca.app.console import make_console
from galpaca.errors import InputError, StoppedBySignal

HOST = "127.0.0.1"
DEFAULT_PORT = 7860

# Of the machine's own; the theme's are fetched from another host.
_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

_CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
footer, #talk .icon-button-wrapper { display: none !important; }
#head h3 { margin: 0.2em 0 0; }
#told { min-height: 1.5em; color: var(--body-text-color-subdued); }
#prompt textarea { font-family: var(--font-mono); font-size: 0.8rem; }
"""


def chat_page(options: ModelOptions, port: int) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        InputError: Gradio is not installed, the port is taken, or whatever is wrong with the options or the model.
    """
    options.check()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise InputError(
            "Gradio is not installed, which makes the page", where="--web", fix="pip install 'galpaca[web]'"
        ) from None
    check_port(port)
    console = make_console()
    loaded, settings = options.load(console)
    from galpaca.app.chat_blocks import build_page

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
            theme=_theme(),
            css=_CSS,
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


def _theme() -> Any:
    import gradio

    return gradio.themes.Default(
        primary_hue="teal", neutral_hue="slate", radius_size="md", spacing_size="sm", font=_SANS, font_mono=_MONO
    )
