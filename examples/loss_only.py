"""A distillation loss in three lines of your own code."""

import torch
from kd_core.criteria.dkd import dkd

student, teacher = torch.randn(8, 100, requires_grad=True), torch.randn(8, 100)  # logits
label = torch.randint(100, (8,))
loss = dkd(student, teacher, label, alpha=1.0, beta=8.0, temperature=4.0)
loss.backward()
