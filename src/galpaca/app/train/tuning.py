"""Whether what a run is tuned with goes with the rest of its configuration."""

from __future__ import annotations

from galpaca.app.config.schema import Config
from galpaca.errors import Problems


def check_tuning(config: Config) -> None:
    """Checks that precision, strategy, model and release go with what is trained; all problems at once.

    Raises:
        InputError: they do not.
    """
    method, problems = config.tuning.method, Problems()
    problems.collect(lambda: method.check(config.precision.weight_dtype))
    problems.collect(lambda: config.strategy.factory.check_tuning(method))
    if method.keeps_base and config.model.path is None:
        problems.add(
            "what is trained belongs to a frozen model, and random weights are none",
            where="model.path",
            fix="model.path=FOLDER_OR_HUB_ID, or tuning=full",
        )
    if method.adapter_config() is None and not config.release.merge:
        problems.add(
            "leaves nothing to release: what is trained is no adapter",
            where="release.merge",
            fix="release.merge=true, or tuning=lora",
        )
    problems.raise_any()
