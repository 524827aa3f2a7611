"""The layering rule, read from the syntax trees: who may import whom, and which packages.

A module may import its own folder's underscore files and anything of a lower rank; never sideways
between families, never up. Imports inside functions count. The table below is the rule.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dpo_diag"
ROOT = PACKAGE.parent

SCIENCE = {"numpy", "scipy", "pandas"}
# place -> (rank, third-party packages it may import, places of its own rank it may import)
RULES: dict[str, tuple[int, set[str], set[str]]] = {
    "__main__": (6, set(), {"cli"}),
    "errors": (0, set(), set()),
    "registry": (0, set(), {"errors"}),
    "content": (1, {"numpy", "pandas"}, set()),
    "table_specs": (1, set(), set()),
    "diagnosis_specs": (1, set(), {"table_specs"}),
    "tables": (1, SCIENCE | {"pyarrow"}, {"content", "table_specs", "diagnosis_specs"}),
    "stats": (1, SCIENCE, set()),
    "conversations": (1, set(), set()),
    "encoded": (1, set(), set()),
    "windows": (1, set(), set()),
    "user_code": (1, set(), set()),  # costs and oracles take a user's function
    "sandbox": (1, {"numpy", "pandas", "torch", "tokenizers", "transformers"}, {"tables"}),
    "pair_formats": (2, {"numpy", "pandas", "pyarrow", "datasets"}, set()),
    "pairs": (2, {"numpy", "pandas", "pyarrow", "datasets"}, {"pair_formats"}),
    "answers": (2, {"numpy", "pandas"}, {"pair_formats"}),
    "text": (2, {"numpy", "pandas", "transformers"}, set()),
    "store": (2, {"numpy", "pandas", "pyarrow"}, set()),
    "weights": (2, {"numpy", "safetensors"}, set()),
    "manifest": (2, set(), {"model_folders", "weights"}),
    "model_folders": (2, {"yaml", "huggingface_hub"}, {"weights"}),
    "training_steps": (2, set(), {"model_folders", "weights"}),
    "checkpoint_reading": (2, set(), {"manifest", "model_folders", "training_steps", "weights"}),
    "checkpoints": (
        2,
        {"transformers"},
        {"manifest", "model_folders", "weights", "checkpoint_reading"},
    ),
    "variants": (2, {"torch"}, set()),
    "costs": (2, {"numpy", "transformers", "torch"}, set()),
    "analyzers": (2, SCIENCE, set()),
    "oracles": (2, {"numpy"}, set()),
    "similarities": (2, {"numpy", "sacrebleu", "nltk", "bert_score", "torch"}, set()),
    "selectors": (2, {"numpy", "pandas"}, set()),
    "pair_checks": (2, SCIENCE, set()),
    # somebody else's run folder: plain files, read without torch or a tokenizer library
    # (jinja2: a chat template, rendered in its sandbox in a process of its own)
    "run_formats": (2, {"numpy", "pandas", "yaml", "jinja2"}, {"model_folders", "weights"}),
    "symptoms": (2, {"numpy", "pandas"}, {"run_formats"}),
    "engines": (
        3,
        {"torch", "transformers", "vllm", "peft", "safetensors", "numpy", "huggingface_hub"},
        set(),
    ),
    "training": (
        4,
        {"torch", "transformers", "peft", "safetensors", "numpy", "pandas", "tqdm"},
        set(),
    ),
    "reporting": (3, {"numpy", "pandas", "matplotlib"}, set()),
    "pipeline": (5, {"numpy", "pandas"}, set()),
    "cli": (6, {"click", "numpy", "pandas", "tqdm"}, set()),
}
# rank 2 and 3 modules that see only ranks 0 and 1 (design.md, section 4)
LOW_ONLY = {
    "variants",
    "costs",
    "analyzers",
    "reporting",
    "oracles",
    "similarities",
    "selectors",
    "pair_checks",
}
NEVER = {("engines", "analyzers"), ("training", "analyzers")}
# only this file of a family may touch the package
ONLY_IN = {("costs", "transformers"): {"classifier"}, ("costs", "torch"): {"classifier"}}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def place_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def violations(path: Path, source: str) -> list[str]:
    place = place_of(path)
    if place not in RULES:
        return [f"{path}: no rule for {place!r}; add it to the table with a reason."]
    rank, granted, siblings = RULES[place]
    bad = []
    for name in imported(ast.parse(source)):
        top, *rest = name.split(".")
        if top == "dpo_diag":
            bad += _inside(path, place, rank, siblings, rest)
        elif top in {"train", "data", "reports", "tests"}:
            bad.append(f"{path}: imports the artefact folder {top}.")
        elif top not in sys.stdlib_module_names and top not in granted:
            bad.append(f"{path}: {place} may not import {top}.")
        elif path.stem not in ONLY_IN.get((place, top), {path.stem}):
            bad.append(f"{path}: only {ONLY_IN[(place, top)]} may import {top}.")
    return bad


def _inside(path: Path, place: str, rank: int, siblings: set[str], rest: list[str]) -> list[str]:
    target = rest[0] if rest else ""
    if target in {"", "__version__"} or target == place:
        return []
    if target not in RULES:
        return [f"{path}: imports dpo_diag.{target}, which has no rule."]
    other = RULES[target][0]
    if (place, target) in NEVER or (place in LOW_ONLY and other > 1):
        return [f"{path}: {place} may not import {target}."]
    if other < rank or target in siblings:
        return []
    return [f"{path}: {place} (rank {rank}) may not import {target} (rank {other})."]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_keeps_to_its_layer(path: Path) -> None:
    assert violations(path, path.read_text(encoding="utf-8")) == []


def test_rule_finds_a_torch_import_hidden_in_a_function_of_an_analyzer() -> None:
    source = "def run():\n    import torch\n"
    assert violations(PACKAGE / "analyzers" / "planted.py", source) == [
        f"{PACKAGE / 'analyzers' / 'planted.py'}: analyzers may not import torch."
    ]


def test_rule_finds_an_import_upwards_and_one_sideways() -> None:
    up = violations(PACKAGE / "stats" / "planted.py", "from dpo_diag.pairs import read_pairs\n")
    side = violations(PACKAGE / "costs" / "planted.py", "import dpo_diag.variants.dpo\n")
    assert len(up) == 1 and len(side) == 1


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.parametrize("folder", ["train", "data", "reports"])
def test_artefact_folders_are_not_packages(folder: str) -> None:
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_command_line_starts_without_heavy_packages() -> None:
    program = (
        "import sys, dpo_diag.cli.main as m\n"
        "try:\n    m.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'vllm', 'transformers', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr
