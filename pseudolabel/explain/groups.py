"""Classes made of several logits each: a network's own classes mapped many-to-one onto the user's.

    y_c = logsumexp_{r in group c} z_r,   dy_c/dz_r = softmax of z over the group

so the weights of class c on the features of one image are its logits' rows, weighted by that softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Groups:
    """Which raw logits make up each class.

    Args:
        members: raw logit indices, counted from 0, of classes 1..C.
        raw: R, how many raw logits there are.
        device: where the logits will be.

    Raises:
        ValueError: a class without a logit, or a logit that is not there.
    """

    def __init__(self, members: Sequence[Sequence[int]], raw: int, device: torch.device) -> None:
        for place, group in enumerate(members, start=1):
            if not group or not all(0 <= index < raw for index in group):
                raise ValueError(f"groups: class {place} has logits {list(group)}, not some of 0..{raw - 1}")
        longest = max(len(group) for group in members)
        padded = [[*group, *[group[0]] * (longest - len(group))] for group in members]
        spare = [[place >= len(group) for place in range(longest)] for group in members]
        self.index = torch.tensor(padded, device=device)  # (C, M)
        self.spare = torch.tensor(spare, device=device)  # (C, M), True where nothing stands
        self.count = len(members)

    def logits(self, raw: Tensor) -> Tensor:
        """(B, R) -> (B, C)."""
        return raw[:, self.index].masked_fill(self.spare, -torch.inf).logsumexp(dim=2)

    def rows(self, raw: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
        """Weights on the features: raw (T, R) and class index (T,), counted from 0 -> (T, D)."""
        index, spare = self.index[columns], self.spare[columns]  # (T, M)
        shares = raw.gather(1, index).masked_fill(spare, -torch.inf).softmax(dim=1)
        return torch.zeros_like(raw).scatter_add_(1, index, shares) @ weight
