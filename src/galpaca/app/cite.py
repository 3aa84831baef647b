"""``galpaca cite``: what to write of a run in a paper."""

from pathlib import Path

from galpaca.app.train.methods import methods, owed_citations
from galpaca.data.prompt_file import PromptFile
from galpaca.errors import InputError
from galpaca.inference.places import checkpoint_of_name
from galpaca.runs.checkpoints import read_manifest
from galpaca.runs.folder import find_run, step_of
from galpaca.runs.record import read_content
from galpaca.runs.record_fields import RunContent


def cite(run: Path) -> None:
    """Prints a paragraph on how the model was made, and the citations that it owes in BibTeX.

    Args:
        run: run folder, or ``RUN@STEP``; of a run, the checkpoint that it releases.

    Raises:
        InputError: no run, or one without a checkpoint.
    """
    source = checkpoint_of_name(str(run))
    folder = find_run(source, recorded=True)
    content = read_content(folder.record) or RunContent()
    which = (content.release.checkpoint if content.release else None) or "last"
    if step_of(source.name) is None:
        if not folder.saved_steps():
            raise InputError("the run has no checkpoint", where=run, fix="wait for one, or name another run")
        source = checkpoint_of_name(f"{source}@{which}")
    manifest = read_manifest(source)
    tuning = content.last_start.setup.get("tuning", "all parameters")
    splits = PromptFile.read(folder.base).splits_sequences
    print(methods(content, manifest, folder.metrics, folder.system, tuning))
    print()
    print(owed_citations(content, manifest, tuning, splits_sequences=splits))
