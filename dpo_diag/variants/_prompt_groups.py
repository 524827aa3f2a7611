"""Arithmetic within prompts, shared by the variants that compare samples of one prompt.

Every function takes values (N,) and ``prompt_index`` (N,), equal for samples of one prompt; order
does not matter. May import: torch.
"""

import torch


def groups(prompt_index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number of each sample's prompt from 0, (N,), and number of samples per prompt, (P,)."""
    _, group, size = torch.unique(prompt_index, return_inverse=True, return_counts=True)
    return group, size


def prompt_sums(values: torch.Tensor, prompt_index: torch.Tensor) -> torch.Tensor:
    """Sum over each prompt's samples, (P,)."""
    group, size = groups(prompt_index)
    return values.new_zeros(len(size)).index_add(0, group, values)


def prompt_means(values: torch.Tensor, prompt_index: torch.Tensor) -> torch.Tensor:
    """Mean over each sample's prompt, (N,)."""
    group, size = groups(prompt_index)
    return (prompt_sums(values, prompt_index) / size)[group]


def less_others(values: torch.Tensor, prompt_index: torch.Tensor) -> torch.Tensor:
    """Value minus the mean of the prompt's other samples, (N,); 0 where there is no other."""
    group, size = groups(prompt_index)
    n = size[group]
    # v - (S - v)/(n - 1) = (v - S/n) * n/(n - 1); a lone sample has v = S/n and gives 0
    return (values - prompt_means(values, prompt_index)) * n / (n - 1).clamp(min=1)
