"""The specification of the tables behind an explanation: predictions, conflicts, sampled answers.

Start reading at ``SPECS``; columns and the other tables are in ``table_specs``.
"""

from dpo_diag.table_specs import DOMAIN, PREFERENCE_PAIRS, SPLIT, Column, TableSpec, ids

SAMPLE_LOGPS = TableSpec(
    "SampleLogps",
    ("model_id", "reference_id", "sampled_by", "prompt_id", "sample_index"),
    (
        *ids("model_id"),
        Column("reference_id", "string", "model_id of the reference"),
        Column("sampled_by", "string", "model_id of the model that the answer was drawn from"),
        *ids("prompt_id"),
        Column("sample_index", "int", "0, 1, ... within a prompt and sampler"),
        Column("logp", "float", "of the answer under the model, at temperature 1", "nats"),
        Column("ref_logp", "float", "of the answer under the reference", "nats"),
        Column("n_tokens", "int", "response tokens", "tokens"),
        Column(
            "answer",
            "string",
            "`third`, or `chosen` or `rejected` where it is that answer of a pair of the prompt",
            optional=True,
        ),
        DOMAIN,
        SPLIT,
    ),
    "sampled answers, scored under a policy and its reference: derived, never measured",
)
SCORED_SAMPLES = TableSpec(
    "ScoredSamples",
    ("model_id", "sampled_by", "prompt_id", "sample_index"),
    (
        *ids("model_id"),
        Column("sampled_by", "string", "model_id of the model that the answer was drawn from"),
        *ids("prompt_id"),
        Column("sample_index", "int", "0, 1, ... within a prompt and sampler"),
        Column("logp", "float", "of the answer under the model, at temperature 1", "nats"),
        Column("n_tokens", "int", "response tokens", "tokens"),
    ),
    "log-probabilities of sampled answers under one model; a reference is just another model",
)
LABEL_EVIDENCE = TableSpec(
    "LabelEvidence",
    ("model_id", "pair_id"),
    (
        *ids("model_id", "pair_id", "prompt_id"),
        Column("verdict", "string", "`label`, `model` or `undecided`: which is more likely wrong"),
        Column("because", "string", "the evidence that the verdict rests on"),
        Column("margin", "float", "implicit-reward margin, below 0", "reward"),
        Column("vote_share", "float", "votes for the label", "share", nullable=True),
        Column("n_votes", "int", "votes", nullable=True),
        Column("twins", "int", "pairs with the same answers, label turned round", nullable=True),
        Column("models_reversing", "float", "of `n_models` models, this one included", "share"),
        Column("n_models", "int", "models compared"),
        Column("steps_reversing", "float", "of `n_steps` steps", "share", nullable=True),
        Column("n_steps", "int", "steps of the run compared"),
        Column("mean_margin", "float", "over the models", "reward"),
        Column("label_right", "float", "posterior that the label is right", nullable=True),
        Column("holder_weight", "float", "pull on Hölder-DPO's loss", nullable=True),
        Column("is_outlier", "bool", "among the share that Hölder-DPO takes for mislabelled"),
    ),
    "what speaks against the label, or the model, of every reversed training pair",
)
REVERSAL_PREDICTIONS = TableSpec(
    "ReversalPredictions",
    ("model_id", "predictor", "pair_id"),
    (
        *ids("model_id"),
        Column("predictor", "string", "what predicts, e.g. `conflict_adam`, `length`"),
        *ids("pair_id", "prompt_id"),
        Column("score", "float", "higher: more likely to end up reversed", nullable=True),
        DOMAIN,
        SPLIT,
    ),
    "what a predictor said of each pair before training",
)
PAIR_CONFLICTS = TableSpec(
    "PairConflicts",
    ("model_id", "pair_id", "train_pair_id"),
    (
        *ids("model_id", "pair_id"),
        Column("train_pair_id", "string", "a training pair that pulls on it"),
        Column(
            "push",
            "float",
            "what the training pair does to the pair's margin; negative pushes it round",
        ),
        Column("cosine", "float", "of the two pairs' preconditioned gradients"),
        Column("share", "float", "of all negative pushes on the pair", "share", nullable=True),
    ),
    "the training pairs that pushed a pair hardest, each way",
)
EXPRESSIBLE = TableSpec(
    "Expressible",
    ("model_id", "space", "dimension", "norm"),
    (
        *ids("model_id"),
        Column("space", "string", "parameters moved: `all`, `lora` or `random` of a dimension"),
        Column("dimension", "int", "of the space"),
        Column("norm", "float", "largest length of the parameter change"),
        Column("moved_norm", "float", "what the run itself moved", nullable=True),
        Column("residual_share", "float", "of the squared target margins left over", "share"),
        Column("sign_errors", "float", "share of pairs ordered wrongly at the best fit", "share"),
        Column(
            "held_out_sign_errors",
            "float",
            "share of pairs that were not fitted and come out ordered wrongly",
            "share",
            nullable=True,
            optional=True,
        ),
        Column("n", "int", "pairs"),
        Column("n_prompts", "int", "prompts of these pairs", optional=True),
    ),
    "how much of the target margins a parameter change of some size can express",
)
LOCAL_MARGINS = TableSpec(
    "LocalMargins",
    ("model_id", "pair_id"),
    (
        *ids("model_id", "pair_id"),
        Column("margin", "float", "at DPO's optimum in the linear class, bounded", "nats"),
        Column(
            "redraw_spread",
            "float",
            "standard deviation of that margin if as many training prompts were drawn anew",
            "nats",
        ),
    ),
    "what the local theory of DPO says of each pair before training",
)
REMOVAL_OUTCOMES = TableSpec(
    "RemovalOutcomes",
    ("model_id", "seed", "pair_id"),
    (
        Column("model_id", "string", "arm: which training pairs were left out"),
        Column("seed", "int", "repetition, with pairs and training of its own"),
        *ids("pair_id", "prompt_id"),
        Column("margin", "float", "of a clean held-out pair, after training", "reward"),
        Column("is_target", "bool", "the run on all pairs reversed it"),
        Column("n_left_out", "int", "training pairs left out"),
    ),
    "clean held-out pairs after training again without some of the training pairs",
)
PAIR_ROWS = TableSpec(
    "PairRows",
    ("row",),
    (
        Column("row", "int", "0, 1, ... in the order they were read"),
        Column("place", "string", "file and line or row it was read from"),
        *PREFERENCE_PAIRS.columns,
    ),
    "every pair of a source as it stands: duplicates, empty and identical answers included",
)
RUN_STEPS = TableSpec(
    "RunSteps",
    ("run_id", "model_id"),
    (
        Column("run_id", "string", "model_id of the run's final model"),
        *ids("model_id"),
        Column(
            "step",
            "float",
            "place on the run's axis of training steps; missing where no file says it",
            "optimiser steps",
            nullable=True,
        ),
        Column("is_start", "bool", "the reference that training started from, at step 0"),
        Column("seed_group", "string", "name that runs share which differ in their seed only"),
    ),
    "which run and training step a model belongs to",
)
PAIR_TIMELINES = TableSpec(
    "PairTimelines",
    ("model_id", "order", "pair_id"),
    (
        *ids("model_id"),
        Column("order", "string", "whose order of the pair: `reward` or `ranking`"),
        *ids("pair_id", "prompt_id"),
        Column("first_right", "float", "first step that has it right", "steps", nullable=True),
        Column("n_flips", "int", "crossings from wrong to right, ties passed over"),
        Column("n_flips_back", "int", "crossings from right to wrong"),
        Column("last_crossing", "float", "step since which it stays", "steps", nullable=True),
        Column("is_forgotten", "bool", "right at some step of training, wrong at the end"),
        Column("forgotten_at", "float", "step that lost it for good", "steps", nullable=True),
        Column("end", "float", "1 right, 0 wrong, one half a tie or undecided"),
        DOMAIN,
        SPLIT,
    ),
    "when each pair's order turned, over the steps of a run",
)
JUDGED_PAIRS = TableSpec(
    "JudgedPairs",
    ("sampled_by", "prompt_id", "sample_index"),
    (
        Column("sampled_by", "string", "model_id of the model that both answers were drawn from"),
        *ids("prompt_id"),
        Column("sample_index", "int", "of the first answer; the second is the next one"),
        Column("judge", "string", "who was asked, several joined by a plus"),
        Column("first", "string", "decoded answer, untrusted text"),
        Column("second", "string", "decoded answer, untrusted text"),
        Column(
            "state",
            "string",
            "`decided`, `tied`, `abstained`, `wavered` (other in the other order), `identical`, "
            "`empty` (an answer is)",
        ),
        Column("n_votes", "int", "judges that gave a verdict"),
        Column("win_first", "float", "mean vote for the first", "share", nullable=True),
        Column(
            "order_agreement",
            "float",
            "share of judges asked in both orders, and readable, with one verdict in both",
            "share",
            nullable=True,
        ),
        Column("pair_id", "string", "of the pair that was made of it, empty where none"),
        DOMAIN,
        SPLIT,
    ),
    "pairs of sampled answers and what became of them before a judge",
)
PAIR_NORMS = TableSpec(
    "PairNorms",
    ("model_id", "pair_id"),
    (
        *ids("model_id", "pair_id", "prompt_id"),
        Column("logp_norm_chosen", "float", "Euclidean norm of the token log-probs", "nats"),
        Column("logp_norm_rejected", "float", "likewise", "nats"),
        Column("n_tokens_chosen", "int", "response tokens", "tokens"),
        Column("n_tokens_rejected", "int", "response tokens", "tokens"),
        Column("truncated", "bool", "any of the two was cut"),
        Column("engine", "string", "engine that produced the row"),
        Column("dtype", "string", "floating-point type the model ran in"),
        Column("tokenizer_hash", "string", "hash of tokenizer and template"),
        DOMAIN,
        SPLIT,
    ),
    "norms of a pair's token log-probs, by which RewardBench scores without a reference",
)
EXPLICIT_REWARDS = TableSpec(
    "ExplicitRewards",
    ("model_id", "pair_id"),
    (
        *ids("model_id", "pair_id", "prompt_id"),
        Column("reward_chosen", "float", "score of a reward model, higher better", "score"),
        Column("reward_rejected", "float", "likewise", "score"),
        Column("truncated", "bool", "any of the two was cut"),
        Column("dtype", "string", "floating-point type the model ran in"),
        Column("tokenizer_hash", "string", "hash of the reward model's tokenizer and template"),
        DOMAIN,
        SPLIT,
    ),
    "what a sequence classifier scores both answers of a pair",
)
PROMPT_DISTANCES = TableSpec(
    "PromptDistances",
    ("reference_id", "prompt_id"),
    (
        Column("reference_id", "string", "model_id of the reference"),
        *ids("prompt_id"),
        Column("encoder", "string", "what the prompts were embedded by"),
        Column(
            "distance",
            "float",
            "of the prompt's embedding from the nearest training prompts, mean of five",
            "cosine distance",
            nullable=True,
        ),
        Column("nearest_prompt_id", "string", "the nearest training prompt", nullable=True),
        Column(
            "seen_share",
            "float",
            "of the prompt's couples of neighbouring tokens, those that a training prompt has",
            "share",
            nullable=True,
        ),
        Column(
            "prompt_surprise",
            "float",
            "minus the mean log-prob of the prompt's tokens after the first under the reference",
            "nats per token",
            nullable=True,
        ),
    ),
    "how far each prompt is from those that a model was trained on",
)
SPECS = {
    spec.name: spec
    for spec in (
        SAMPLE_LOGPS,
        SCORED_SAMPLES,
        LABEL_EVIDENCE,
        REVERSAL_PREDICTIONS,
        PAIR_CONFLICTS,
        EXPRESSIBLE,
        EXPLICIT_REWARDS,
        JUDGED_PAIRS,
        PAIR_NORMS,
        LOCAL_MARGINS,
        REMOVAL_OUTCOMES,
        PAIR_ROWS,
        RUN_STEPS,
        PAIR_TIMELINES,
        PROMPT_DISTANCES,
    )
}
