"""A strategy of a user's own, under a name that ``galpaca`` does not know."""

from dataclasses import dataclass

from galpaca.training.strategies import Single


@dataclass(frozen=True)
class Alone(Single):
    """One process, under a name of its own."""

    @classmethod
    def target(cls) -> str:
        return f"{cls.__module__}.{cls.__qualname__}"
