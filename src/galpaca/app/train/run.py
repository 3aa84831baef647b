"""``python train.py``: from the configuration to the released model."""

from pathlib import Path

from galpaca.app.cluster.launch import check_launch
from galpaca.app.cluster.ranks import global_rank, mark_launcher
from galpaca.app.config.composition import completed_yaml
from galpaca.app.config.schema import Config
from galpaca.app.console import make_console, show_rows
from galpaca.app.prepared.caches import keep_caches
from galpaca.app.prepared.weights import local_model
from galpaca.app.train.context import OpenedRun, RunContext
from galpaca.app.train.data import find_data, prepare_data
from galpaca.app.train.data_facts import show_data
from galpaca.app.train.disk_space import check_disk_and_memory
from galpaca.app.train.finish import finish, release_advice
from galpaca.app.train.instantiate import check_machine, make_engine
from galpaca.app.train.samples import load_samples
from galpaca.app.train.start import (
    finished,
    open_record,
    record_outcome,
    run_lock,
    write_start,
)
from galpaca.app.train.starting_point import choose_starting_point
from galpaca.app.train.steps import plan_steps
from galpaca.model.build import build_model, parameter_shapes
from galpaca.model.configuration import check_model, read_config
from galpaca.runs.folder import RunFolder
from galpaca.runs.shutdown import Shutdown


def train(config: Config, resolved_yaml: str) -> RunFolder:
    """Trains and releases a model; resumes where an earlier run of the same name stopped.

    Args:
        config: configuration of the run.
        resolved_yaml: the same as text, for the run folder.

    Raises:
        InputError: a user error, reported before anything is written.
        StoppedBySignal: the run was stopped and has been saved.
    """
    keep_caches(Path(config.run.root))
    check_launch(config.trainer)
    mark_launcher()
    shutdown = Shutdown.of_process()
    console = make_console(quiet=global_rank() != 0)
    folder = RunFolder(Path(config.run.root), config.run.name)

    # What is cheap to find wrong comes first: the file, the run folder, the machine, the model; then the encoding.
    found = find_data(config.data, folder.root)
    with run_lock(folder):
        check_machine(config)
        engine = make_engine(config)
        local = local_model(config, console)
        family = check_model(local.spec, config.data.max_length)
        config = config.on(family)
        config.compute.check(config.fast_attention)
        data = prepare_data(config.data, found, local.spec.tokenizer_path, console)
        steps = plan_steps(config, data)
        model_config = read_config(local.spec, family, data.tokenizer)
        samples = load_samples(config, data, family.num_positions(model_config))
        record, changes = open_record(folder, config, data, local, engine.id_variable)
        show_data(console, data.split)
        if finished(folder, record, config, steps.num_steps):
            what = " and ".join(str(folder.path / name) for name in config.released_folders)
            console.print(f"\n[green]{folder.path} is complete[/green]; its model is {what}")
            for advice in release_advice(folder, config, record.content.release):
                console.print(f"[yellow]left as it is:[/yellow] {advice}")
            return folder
        model = build_model(model_config, family)
        tuning = config.tuning.method
        tuning.check_model(parameter_shapes(model))
        opened = OpenedRun(config, folder, record, console)
        start = choose_starting_point(opened, steps.num_steps, local, model)
        run = RunContext(**vars(opened), steps=steps, start=start)
        check_disk_and_memory(run)
        from galpaca.app.train.fit import fit  # these load all of Lightning and transformers: after the checks
        from galpaca.app.train.loggers import loggers_of
        from galpaca.app.train.prepared_model import prepare_model
        from galpaca.app.train.release import keep_for_release, release

        write_start(run, completed_yaml(resolved_yaml, config), local, changes)
        keep_for_release(run, data, model_config)
        show_rows(console, "run", list(record.content.last_start.setup.items()))
        with record_outcome(record, shutdown):
            prepare_model(model, config)
            with loggers_of(engine, run) as loggers:
                fit(run, model, samples, engine, loggers, shutdown)
                release(run)
        finish(run)
    return folder
