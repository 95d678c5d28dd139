"""Keeps bfloat16 away from convolutions that the CPU library computes wrongly.

oneDNN on processors with AMX gives wrong numbers for some strided bf16 convolutions (16 -> 32
channels, kernel 8, stride 4 with torch 2.13: cosine similarity 0.2 to the fp32 result; the gradient
of the transposed one likewise) while every other layer of the codec is right. A codec trained so
diverges within 30 steps. So every convolution is tried once, forward and backward, and those that
fail run in fp32 inside autocast.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity


def _results(module: nn.Module, x: Tensor, dtype: torch.dtype) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = module(x).float()
    target = torch.sin(torch.arange(y.numel(), dtype=torch.float32)).view_as(y)
    parameters = [p for p in module.parameters() if p.requires_grad]
    grads = torch.autograd.grad((y * target).sum(), [x, *parameters])
    return [y.detach(), *grads]


def guard(model: nn.Module, n_samples: int = 5120) -> list[str]:
    """Wrap the convolutions of `model` that bf16 gets wrong; returns their names."""
    guarded = []
    generator = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Conv2d):
            continue
        place = (64, n_samples // 64) if isinstance(module, nn.Conv2d) else (n_samples,)
        x = torch.randn(4, module.in_channels, *place, generator=generator)
        pairs = zip(*(_results(module, x, t) for t in (torch.float32, torch.bfloat16)), strict=True)
        if all(cosine_similarity(a.flatten(), b.flatten(), 0) > 0.99 for a, b in pairs):
            continue
        guarded.append(name)
        module.forward = _in_fp32(module.forward)
    return guarded


def _in_fp32(forward):
    def run(x: Tensor, *args, **kwargs) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float(), *args, **kwargs)

    return run
