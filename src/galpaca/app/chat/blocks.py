"""The layout of the chat page."""

from collections.abc import Iterator
from typing import Any

import gradio

from galpaca.app.chat.talk import Conversations, Message
from galpaca.inference.loading import Loaded
from galpaca.inference.settings import Settings

_LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
    {"left": "$", "right": "$", "display": False},
]

# System fonts: the theme's own would be fetched from another host.
_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
footer, #talk .icon-button-wrapper { display: none !important; }
#head h3 { margin: 0.2em 0 0; }
#summary { min-height: 1.5em; color: var(--body-text-color-subdued); }
/* A sequence has no spaces to break at: it must not push the page off a phone. */
#talk .message, #talk .message * { overflow-wrap: anywhere; min-width: 0; }
#talk .katex-display, #talk pre { overflow-x: auto; overflow-y: hidden; }
#prompt textarea { font-family: var(--font-mono); font-size: 0.8rem; }
"""


# Done by the browser alone, from the text as it was generated. Without HTTPS it has no clipboard on other machines.
_COPY = """
(saved) => {
  const last = (saved || "").trim().split("\\n").pop();
  if (!last) return "There is no answer to copy yet.";
  const text = JSON.parse(last).answer;
  if (navigator.clipboard) { navigator.clipboard.writeText(text); return "Copied the last answer."; }
  const box = document.body.appendChild(document.createElement("textarea"));
  box.value = text; box.select();
  const done = document.execCommand("copy");
  box.remove();
  return done ? "Copied the last answer." : "The browser does not let this page copy.";
}
"""
_SAVE = """
(saved) => {
  if (!saved) return "There is nothing to save yet.";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([saved], {type: "application/jsonl"}));
  link.download = "chat.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
  return `Saved ${saved.trim().split("\\n").length} questions and answers as chat.jsonl.`;
}
"""


def build_page(loaded: Loaded, settings: Settings) -> gradio.Blocks:
    """Builds the page without serving it.

    Args:
        settings: initial values of the controls.
    """
    talks = Conversations(loaded, settings)
    with gradio.Blocks(title=f"galpaca: {loaded.name}", analytics_enabled=False) as page:
        gradio.Markdown(_head(loaded), elem_id="head")
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=3, min_width=320):
                talk, note, instruction, input, ask, stop, clear = _talk()
                saved = gradio.Textbox(visible=False)
                with gradio.Row():
                    copy = gradio.Button("Copy answer", size="sm", elem_id="copy", min_width=80)
                    save = gradio.Button("Save as JSON Lines", size="sm", elem_id="save", min_width=80)
            with gradio.Column(scale=1, min_width=260), gradio.Accordion("Sampling settings", open=True):
                values = _values(settings, loaded.positions)
        with gradio.Accordion("Prompt as the model sees it", open=False, elem_id="seen"):
            prompt = gradio.Textbox(
                lines=6,
                max_lines=30,
                show_label=False,
                container=False,
                interactive=False,
                elem_id="prompt",
                buttons=["copy"],
                placeholder="The last prompt as the model sees it, and the answer as generated.",
            )

        def answer(
            request: gradio.Request, instruction: str, input: str, talk: list[Message], *given: Any
        ) -> Iterator[tuple[Any, ...]]:
            question = (instruction.strip(), input.strip())
            for shown in talks.ask(str(request.session_hash), question, talk, dict(zip(values, given, strict=True))):
                yield tuple(gradio.skip() if value is None else value for value in shown)

        def end(request: gradio.Request) -> None:
            talks.stop(str(request.session_hash))

        def leave(request: gradio.Request) -> None:
            talks.leave(str(request.session_hash))

        quietly: Any = {"show_progress": "hidden", "api_visibility": "private"}
        gradio.on(
            [ask.click, instruction.submit, input.submit],
            answer,
            [instruction, input, talk, *values.values()],
            [talk, note, prompt, instruction, saved],
            trigger_mode="once",
            **quietly,
        )
        stop.click(end, queue=False, **quietly)
        emptied = [talk, note, prompt, instruction, input, saved]
        clear.click(lambda: ([], *[""] * (len(emptied) - 1)), outputs=emptied, queue=False, **quietly)
        for button, js in ((copy, _COPY), (save, _SAVE)):
            button.click(None, saved, note, js=js, **quietly)
        page.unload(leave)
    return page


_TURNS = {
    False: "Each instruction is answered on its own, as in training: the model sees no earlier turns.",
    True: "The model sees earlier questions and answers; Clear starts another conversation.",
}


def _head(loaded: Loaded) -> str:
    return f"### {loaded.name.rstrip('/')}\n{loaded.device_dtype}. {_TURNS[loaded.keeps_turns]}"


def _talk() -> tuple[Any, ...]:
    talk = gradio.Chatbot(
        show_label=False,
        elem_id="talk",
        height=440,
        latex_delimiters=_LATEX,
        layout="bubble",
        buttons=[],  # what they would copy has its tags escaped
        feedback_options=None,
        placeholder="Ask something.",
        allow_file_downloads=False,
    )
    note = gradio.Markdown("", elem_id="summary")
    instruction = gradio.Textbox(
        label="Instruction",
        lines=1,
        max_lines=10,
        autofocus=True,
        elem_id="instruction",
        placeholder="Press Enter to ask",
    )
    input = gradio.Textbox(
        label="Input", lines=1, max_lines=10, elem_id="input", placeholder="optional context for the instruction"
    )
    with gradio.Row():
        ask = gradio.Button("Ask", variant="primary", elem_id="ask", min_width=80)
        stop = gradio.Button("Stop", elem_id="stop", min_width=80)
        clear = gradio.Button("Clear", elem_id="clear", min_width=80)
    return talk, note, instruction, input, ask, stop, clear


def _values(settings: Settings, positions: int | None) -> dict[str, Any]:
    """A control for each setting, by its name."""
    most = positions or 4096
    return {
        "max_new_tokens": gradio.Slider(
            1, max(most, settings.max_new_tokens), settings.max_new_tokens, step=1, label="Max new tokens"
        ),
        "temperature": gradio.Slider(0, 2, settings.temperature, step=0.05, label="Temperature", info="0: greedy"),
        "top_p": gradio.Slider(0.05, 1, settings.top_p, step=0.01, label="Top-p"),
        "top_k": gradio.Slider(0, 200, settings.top_k, step=1, label="Top-k", info="0: off"),
        "repetition_penalty": gradio.Slider(
            0.5, 2, settings.repetition_penalty, step=0.01, label="Repetition penalty", info="1: off"
        ),
        "seed": gradio.Number(settings.seed, precision=0, label="Seed"),
    }


def theme() -> gradio.themes.Base:
    """A theme with system fonts."""
    return gradio.themes.Default(
        primary_hue="teal", neutral_hue="slate", radius_size="md", spacing_size="sm", font=_SANS, font_mono=_MONO
    )
