"""The specification of every table: its columns, key and meaning.

Start reading at ``SPECS``; what is done with tables is in ``tables``; the tables behind an
explanation are in ``diagnosis_specs``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of a table: its dtype, unit and meaning.

    ``dtype`` is one of ``string``, ``float``, ``int``, ``bool``, ``ids`` (a list of int32).
    ``optional`` columns may be absent altogether; ``nullable`` ones may hold missing values.
    """

    name: str
    dtype: str
    meaning: str
    unit: str = ""
    nullable: bool = False
    optional: bool = False


@dataclass(frozen=True)
class TableSpec:
    """A table's name, key and columns; the key's columns identify a row."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    meaning: str

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the specified columns, in order."""
        return tuple(column.name for column in self.columns)


def ids(*names: str) -> tuple[Column, ...]:
    """The columns of these ids, as every table has them."""
    meanings = {
        "model_id": "run name plus eight hex digits of the weights' hash",
        "pair_id": "content hash of prompt, chosen and rejected",
        "prompt_id": "content hash of the prompt",
    }
    return tuple(Column(name, "string", meanings[name]) for name in names)


DOMAIN = Column("domain", "string", "`in_domain` or the name of a shift")
SPLIT = Column("split", "string", "`train`, `validation` or `test`")
_SOURCE = Column("source", "string", "data set and generator version")
_MESSAGES = Column(
    "prompt_messages",
    "string",
    "JSON list of role/content turns where the prompt is a conversation, else missing",
    nullable=True,
    optional=True,
)
_ENGINE = (
    Column("engine", "string", "engine that produced the row"),
    Column("dtype", "string", "floating-point type the model ran in"),
    Column("tokenizer_hash", "string", "hash of tokenizer and template"),
)

PREFERENCE_PAIRS = TableSpec(
    "PreferencePairs",
    ("pair_id",),
    (
        *ids("pair_id", "prompt_id"),
        Column("prompt", "string", "plain text, no template"),
        Column("chosen", "string", "preferred response"),
        Column("rejected", "string", "dispreferred response"),
        DOMAIN,
        SPLIT,
        _SOURCE,
        _MESSAGES,
        Column(
            "gold_margin",
            "float",
            "true reward of chosen minus rejected, where known",
            unit="gold reward",
            nullable=True,
            optional=True,
        ),
        Column(
            "vote_share",
            "float",
            "share of annotators who prefer chosen, in [0, 1], where several voted",
            unit="share",
            nullable=True,
            optional=True,
        ),
        Column(
            "n_votes",
            "int",
            "annotators behind vote_share",
            nullable=True,
            optional=True,
        ),
        Column(
            "shift_kind",
            "string",
            "of a shifted pair: `prompt`, `domain`, `response_source` or `token_level`",
            nullable=True,
            optional=True,
        ),
    ),
    "what annotators preferred, one row per pair",
)
PROMPTS = TableSpec(
    "Prompts",
    ("prompt_id",),
    (
        *ids("prompt_id"),
        Column("prompt", "string", "plain text, no template"),
        DOMAIN,
        SPLIT,
        _SOURCE,
        _MESSAGES,
    ),
    "prompts without pairs, for sampling",
)
SCORED_PAIRS = TableSpec(
    "ScoredPairs",
    ("model_id", "pair_id"),
    (
        *ids("model_id", "pair_id", "prompt_id"),
        Column("logp_chosen", "float", "summed over response tokens, EOS included", "nats"),
        Column("logp_rejected", "float", "summed over response tokens, EOS included", "nats"),
        Column("n_tokens_chosen", "int", "response tokens summed over", "tokens"),
        Column("n_tokens_rejected", "int", "response tokens summed over", "tokens"),
        Column("truncated", "bool", "any of the two was cut"),
        *_ENGINE,
        DOMAIN,
        SPLIT,
    ),
    "log-probabilities of a pair under one model; a reference is just another model",
)
PAIR_STATES = TableSpec(
    "PairStates",
    ("model_id", "pair_id"),
    (
        *ids("model_id", "pair_id", "prompt_id"),
        Column("state_product", "float", "<S+, S->, S the sum of an answer's last-layer states"),
        Column("state_square", "float", "||S+||^2"),
        Column("n_tokens_chosen", "int", "response tokens summed over", "tokens"),
        Column("n_tokens_rejected", "int", "response tokens summed over", "tokens"),
        Column("truncated", "bool", "any of the two was cut"),
        *_ENGINE,
        DOMAIN,
        SPLIT,
    ),
    "products of a pair's summed hidden states under one model",
)
IMPLICIT_REWARDS = TableSpec(
    "ImplicitRewards",
    ("model_id", "reference_id", "reward_def", "pair_id"),
    (
        *ids("model_id"),
        Column("reference_id", "string", "model_id of the reference, `none` where there is none"),
        Column("reward_def", "string", "variant and hyper-parameters that define the reward"),
        *ids("pair_id", "prompt_id"),
        Column("reward_chosen", "float", "implicit reward", "reward"),
        Column("reward_rejected", "float", "implicit reward", "reward"),
        Column("margin", "float", "reward_chosen minus reward_rejected", "reward"),
        Column("logratio_chosen", "float", "policy minus reference", "nats", nullable=True),
        Column("logratio_rejected", "float", "policy minus reference", "nats", nullable=True),
        Column("logp_chosen", "float", "policy", "nats"),
        Column("logp_rejected", "float", "policy", "nats"),
        Column("ref_logp_chosen", "float", "reference", "nats", nullable=True),
        Column("ref_logp_rejected", "float", "reference", "nats", nullable=True),
        Column("n_tokens_chosen", "int", "response tokens", "tokens"),
        Column("n_tokens_rejected", "int", "response tokens", "tokens"),
        Column("truncated", "bool", "any of the two responses was cut"),
        Column(
            "margin_noise",
            "float",
            "measured disagreement of engines on a margin; below it the order is undecided",
            "nats",
            nullable=True,
        ),
        DOMAIN,
        SPLIT,
        Column("step", "int", "training step of the checkpoint; -1 for the final model"),
    ),
    "implicit rewards of each pair: derived from two ScoredPairs tables, never measured",
)
SAMPLES = TableSpec(
    "Samples",
    ("model_id", "prompt_id", "sample_index"),
    (
        *ids("model_id", "prompt_id"),
        Column("sample_index", "int", "0, 1, ... within a prompt"),
        Column("phase", "string", "`search` or `confirm`: confirmation uses fresh samples"),
        Column("response", "string", "decoded answer, untrusted text"),
        Column("response_ids", "ids", "what was sampled; text need not tokenise back to it"),
        Column("n_tokens", "int", "EOS included when it was produced", "tokens"),
        Column("logp", "float", "at temperature 1", "nats", nullable=True),
        Column("finish_reason", "string", "`stop` or `length`"),
        Column("temperature", "float", "sampling temperature"),
        Column("top_p", "float", "nucleus share"),
        Column("seed", "int", "seed of the batch the row was drawn in"),
        Column("engine", "string", "engine that produced the row"),
        Column("dtype", "string", "floating-point type the model ran in"),
        DOMAIN,
        SPLIT,
    ),
    "answers sampled from a model",
)
SAMPLE_COSTS = TableSpec(
    "SampleCosts",
    ("model_id", "prompt_id", "sample_index", "cost"),
    (
        *ids("model_id", "prompt_id"),
        Column("sample_index", "int", "as in Samples"),
        Column("phase", "string", "as in Samples"),
        Column("cost", "string", "name of the cost model"),
        Column("value", "float", "higher is worse; unit given by the cost", nullable=True),
        Column("abstained", "bool", "the cost model declined; then value is missing"),
        DOMAIN,
        SPLIT,
    ),
    "cost of each sampled answer under one cost model",
)
WIN_RATES = TableSpec(
    "WinRates",
    ("model_id", "kind", "opponent_id", "oracle", "prompt_id"),
    (
        *ids("model_id"),
        Column(
            "kind",
            "string",
            "`against` a named opponent, or a deviation: `best_model`, `best_of_pool`",
        ),
        Column("opponent_id", "string", "model_id of the opponent, `pool` for picked answers"),
        Column("oracle", "string", "whose preference, `mean` for the mean of all oracles"),
        *ids("prompt_id"),
        Column(
            "win_rate",
            "float",
            "chance that an answer of the model is preferred to one of the opponent",
            "share",
            nullable=True,
        ),
        Column("n_comparisons", "int", "pairs of answers compared"),
        DOMAIN,
        SPLIT,
    ),
    "how a model's answers fare against others', by prompt and by who judges",
)
TRAIN_LOG = TableSpec(
    "TrainLog",
    ("run_id", "step"),
    (
        Column("run_id", "string", "name of the run"),
        Column("step", "int", "optimiser step"),
        Column("loss", "float", "mean over the batch", nullable=True),
        Column("grad_norm", "float", "before clipping", nullable=True),
        Column("lr", "float", "learning rate"),
        Column("margin", "float", "mean implicit-reward margin", "reward", nullable=True),
        Column("accuracy", "float", "reward accuracy, ties one half", nullable=True),
        Column("logp_chosen", "float", "mean", "nats", nullable=True),
        Column("logp_rejected", "float", "mean", "nats", nullable=True),
        Column("seconds", "float", "wall time of the step", "s"),
    ),
    "one row per optimiser step",
)
FINDINGS = TableSpec(
    "Findings",
    ("analyzer", "statistic", "model_id", "baseline_id", "slice"),
    (
        Column("analyzer", "string", "analyzer that made the row"),
        Column("statistic", "string", "what was estimated"),
        Column("model_id", "string", "model it is about"),
        Column("baseline_id", "string", "model it is compared with, empty where none"),
        Column("slice", "string", "part of the data, `all` or `column=value`"),
        Column("estimate", "float", "missing when there is nothing to estimate", nullable=True),
        Column("ci_low", "float", "lower end of the interval", nullable=True),
        Column("ci_high", "float", "upper end of the interval", nullable=True),
        Column("ci_level", "float", "nominal level, 0 to 1", nullable=True),
        Column("method", "string", "how interval (and p-value) were made"),
        Column("is_guarantee", "bool", "finite-sample bound (true) or approximation (false)"),
        Column("p_value", "float", "raw; missing where no test was made", nullable=True),
        Column("p_adjusted", "float", "Holm within the family", nullable=True),
        Column(
            "detectable",
            "float",
            "smallest difference found with 80 % power at this n; comparisons only",
            nullable=True,
        ),
        Column("verdict", "string", "`better`, `worse`, `not distinguishable`; comparisons only"),
        Column("n", "int", "rows behind it"),
        Column("n_clusters", "int", "independent prompts behind it"),
        Column("unit", "string", "unit in words"),
        Column("better", "string", "`lower`, `higher` or `neither`"),
        Column("flag", "string", "empty, or why not to lean on it"),
        Column("params", "string", "the analyzer's parameters as canonical JSON"),
    ),
    "the one result table: every number with its interval, n, unit, direction and flag",
)
CURVES = TableSpec(
    "Curves",
    ("analyzer", "curve", "model_id", "series", "x"),
    (
        Column("analyzer", "string", "analyzer that made the row"),
        Column("curve", "string", "name of the curve"),
        Column("model_id", "string", "model it is about"),
        Column("series", "string", "line within the curve"),
        Column("x", "float", "abscissa"),
        Column("y", "float", "ordinate", nullable=True),
        Column("y_low", "float", "lower end of the interval", nullable=True),
        Column("y_high", "float", "upper end of the interval", nullable=True),
        Column("n", "int", "rows behind the point"),
    ),
    "points to draw",
)
CASES = TableSpec(
    "Cases",
    ("analyzer", "kind", "model_id", "row_key"),
    (
        Column("analyzer", "string", "analyzer that made the row"),
        Column("kind", "string", "what the case shows, e.g. `broken_pair`"),
        Column("model_id", "string", "model it is about"),
        Column("row_key", "string", "pair_id or prompt_id"),
        Column("severity", "float", "higher is more telling"),
        Column("note", "string", "one line in words"),
    ),
    "the most telling rows",
)
METHOD_VALUES = TableSpec(
    "MethodValues",
    ("model_id", "arm", "seed", "statistic", "unit_id"),
    (
        Column("model_id", "string", "method; its training seeds are rows of their own"),
        Column("arm", "string", "`main`, or the share of labels turned around"),
        Column("seed", "int", "training seed"),
        Column("statistic", "string", "what was measured"),
        Column("unit_id", "string", "pair_id or prompt_id, empty for a number of the whole model"),
        Column("prompt_id", "string", "prompt of the unit, empty likewise"),
        Column("value", "float", "in the statistic's unit", nullable=True),
    ),
    "one row per method, seed and prompt or pair, behind the numbers of `methods`",
)
SPECS = {
    spec.name: spec
    for spec in (
        PREFERENCE_PAIRS,
        PROMPTS,
        SCORED_PAIRS,
        PAIR_STATES,
        IMPLICIT_REWARDS,
        SAMPLES,
        SAMPLE_COSTS,
        WIN_RATES,
        TRAIN_LOG,
        FINDINGS,
        CURVES,
        CASES,
        METHOD_VALUES,
    )
}
