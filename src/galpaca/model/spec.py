"""Which model to train, as a plain record: cheap to import."""

from dataclasses import dataclass

from galpaca.errors import Problems

# Of a model of random weights without a ``config.json``.
_SIZES = ("num_layers", "hidden_size", "num_heads", "ffn_size", "max_positions")
_ALL_SIZES = (*_SIZES, "num_kv_heads")
# Keys that say nothing of a model that is loaded.
OF_RANDOM_WEIGHTS = (*_ALL_SIZES, "config")


@dataclass(frozen=True)
class ModelSpec:
    """Which model to train.

    Attributes:
        path: folder or Hub id of a model; None starts from random weights with the architecture below.
        revision: revision of the Hub id.
        tokenizer: folder or Hub id; default: the model's own.
        family: the architecture: ``opt``, ``llama``, or the dotted path of a class of your own; default: what the
            model's ``config.json`` says, and ``opt`` where there is none.
        config: a ``config.json`` whose sizes a model of random weights has; the next six are for one without.
        num_layers: number of decoder layers.
        hidden_size: width of the residual stream; a multiple of ``num_heads``.
        num_heads: attention heads per layer.
        num_kv_heads: of these, heads with keys and values of their own, of a Llama; default: all.
        ffn_size: width of the feed-forward block.
        max_positions: context length in tokens.
        dropout: dropout probability of embeddings and residual branches during training; default: as the family was
            pre-trained, 0.1 for OPT and 0 for Llama.
        attention_dropout: dropout probability of attention weights; above 0 uses the slower per-example attention.
        license: license of the weights, for the model card.
    """

    path: str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    family: str | None = None
    config: str | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    num_kv_heads: int | None = None
    ffn_size: int | None = None
    max_positions: int | None = None
    dropout: float | None = None
    attention_dropout: float = 0.0
    license: str | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("dropout", "attention_dropout"):
            problems.check_number(f"model.{name}", getattr(self, name), "in [0, 1)", f"model.{name}=0")
        if self.path is None and self.config is None:
            self._check_sizes(problems)
        elif self.path is None:
            for name in _ALL_SIZES:
                if getattr(self, name) is not None:
                    what = f"the sizes are those of model.config, and {name} is given beside it"
                    problems.add(what, where=f"model.{name}", fix="model=random model.config=FILE, or leave it out")
        if self.path is None and self.tokenizer is None:
            fix = "model.tokenizer=FOLDER_OR_HUB_ID, or model.path"
            problems.add("no tokenizer given", where="model.tokenizer", fix=fix)
        problems.raise_any()

    def _check_sizes(self, problems: Problems) -> None:
        for name in _SIZES:
            problems.check_at_least_one("model.", {name: getattr(self, name)})
            if getattr(self, name) is None:
                problems.add("required when model.path is not set", where=f"model.{name}", fix=f"model.{name}=N")
        problems.check_at_least_one("model.", {"num_kv_heads": self.num_kv_heads})
        if self.hidden_size and self.num_heads and self.hidden_size % self.num_heads:
            problems.add(
                f"must be a multiple of model.num_heads={self.num_heads}, got {self.hidden_size}",
                where="model.hidden_size",
                fix="change model.hidden_size or model.num_heads",
            )
        if self.num_kv_heads and self.num_heads and self.num_heads % self.num_kv_heads:
            problems.add(
                f"must divide model.num_heads={self.num_heads}, got {self.num_kv_heads}",
                where="model.num_kv_heads",
                fix="change model.num_kv_heads or model.num_heads",
            )

    @property
    def tokenizer_path(self) -> str:
        return self.tokenizer or self.path or ""
