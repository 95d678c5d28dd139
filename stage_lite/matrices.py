"""How generation holds a matrix and applies it: fp32, bf16, int8. The one file to teach another.

A step multiplies two rows (guidance) by every matrix of the model, so its time is that of reading
the matrices: half the bytes, twice the speed. Of MusicGen-small, per step:

    fp32   1.4 GB   the reference
    bf16   0.7 GB   matrices rounded to 8 bits of mantissa, activations stay fp32
    int8   0.35 GB  matrices rounded to 255 levels, each row (output channel) on a scale of its own;
                    activations are rounded too, to 255 levels of what is there at that moment

torch has announced that its eager quantization (`torch.ao.quantization`, quantized tensors) moves
to torchao. None of its classes is used here, only the operators `quantized.linear_prepack` and
`linear_dynamic`, whose kernels (fbgemm) come with torch's builds for x86. Where they are missing
int8 is weight-only, by `torch._weight_int8pack_mm`: slower, with the same files and the same call.

Notebook: 02_language_model.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from stage_lite.errors import StageLiteError
from stage_lite.lm_weights import Linear

WEIGHTS = ("fp32", "bf16", "int8")
_FEW_ROWS = 8
_BLOCK_ROWS = 256


def linear_for(weight: Tensor, bias: Tensor | None, weights: str) -> Linear:
    """The object that applies a matrix, held as `weights` says. Copies only where it must.

    Args:
        weight: [out, in] of any float type.
        bias: [out] or None.
        weights: "fp32", "bf16", "int8", or "fp16" for a model that is fp16 itself.
    """
    weight = weight.detach()
    activations = activation_dtype(weights, weight.device)
    bias = None if bias is None else bias.detach().to(activations)
    if weights == "int8":
        kind = DynamicInt8 if has_dynamic_int8() else WeightOnlyInt8
        return kind(weight, bias)
    weight = weight.to(DTYPES[weights])
    return AddingLinear(weight, bias) if weight.dtype == activations else CastLinear(weight, bias)


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def activation_dtype(weights: str, device: torch.device) -> torch.dtype:
    """What stands between the matrices: fp32 on a CPU, where attention in bf16 is slower and less
    exact; on a GPU the type of the matrices."""
    return torch.float32 if device.type == "cpu" else DTYPES.get(weights, torch.float32)


class AddingLinear(Linear):
    """A matrix in the activations' type, which can add the residual in the same call."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__(weight, bias)
        self.transposed = weight.t()
        self.itemsize = weight.itemsize

    def dense(self) -> Tensor:
        """[out, in] of a float type, in this and the other classes: for what is computed once."""
        return self.weight

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is not None or x.dim() != 2:
            return super().__call__(x)
        if _few(x):
            return torch.mm(self.weight, x.t()).t().contiguous()
        return torch.mm(x, self.transposed)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        if self.bias is not None or x.dim() != 2:
            return super().add_to(residual, x)
        if _few(x):
            return torch.addmm(residual.t(), self.weight, x.t()).t().contiguous()
        return torch.addmm(residual, x, self.transposed)


def _few(x: Tensor) -> bool:
    """Whether the matrix should stand on the left: with 2 to 8 rows on a CPU it is then read 1.2 to
    3.3 times as fast (dev/LOG.md)."""
    return 2 <= x.shape[0] <= _FEW_ROWS and x.device.type == "cpu"


class CastLinear(Linear):
    """A matrix in another type than the activations', such as bfloat16: half of the reading."""

    itemsize = 2

    def dense(self) -> Tensor:
        return self.weight

    def __call__(self, x: Tensor) -> Tensor:
        y = F.linear(x.to(self.weight.dtype), self.weight).to(x.dtype)
        return y if self.bias is None else y + self.bias


class DynamicInt8(Linear):
    """An int8 matrix; activations become int8 on the way in (fbgemm, packed for its kernels).

    The rows of a step are rounded on one scale, so what a row hears of its neighbours is their
    loudness. Of more than 8 rows, as in the pass over a prefix, each is brought to its own first.
    """

    itemsize = 1

    def __init__(self, weight: Tensor, bias: Tensor | None):
        values, scales = quantize_rows(weight)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        engine = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            with warnings.catch_warnings():  # that quantized tensors will go: see above
                warnings.simplefilter("ignore")
                matrix = torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0)
                self.packed = torch.ops.quantized.linear_prepack(matrix, None)
        finally:
            torch.backends.quantized.engine = engine
        self.bias = bias
        self.reduce_range = not _has_vnni()

    def dense(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.ops.quantized.linear_unpack(self.packed)[0].dequantize()

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() > _FEW_ROWS * x.shape[-1]:
            loudest = x.abs().amax(-1, keepdim=True).clamp(min=1e-20)
            y = self._apply(x / loudest).mul_(loudest)
        else:
            y = self._apply(x)
        return y if self.bias is None else y + self.bias

    def _apply(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)


class WeightOnlyInt8(Linear):
    """An int8 matrix and bfloat16 activations: for processors without fbgemm."""

    itemsize = 1

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.values, scales = quantize_rows(weight)
        self.scales, self.bias = scales.bfloat16(), bias

    def dense(self) -> Tensor:
        return self.values * self.scales.float()[:, None]

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        y = torch._weight_int8pack_mm(rows, self.values, self.scales)
        y = y.view(*x.shape[:-1], -1).to(x.dtype)
        return y if self.bias is None else y + self.bias


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values [out, in] in [-127, 127] and one scale per row: weight = values * scale, nearly.

    A row of zeros has the scale 1. The error is at most half a scale, 1 / 254 of the row's largest
    number.
    """
    blocks = weight.split(_BLOCK_ROWS)  # so that what conversion takes meanwhile stays small
    largest = torch.cat([block.float().abs().amax(1) for block in blocks])
    if not torch.isfinite(largest).all():
        raise StageLiteError(
            "a matrix holds NaN or infinite numbers, which int8 cannot hold; expected finite "
            "weights: the training may have diverged, or the file is broken"
        )
    scales = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    values = torch.empty(weight.shape, dtype=torch.int8)
    for block, out, scale in zip(
        blocks, values.split(_BLOCK_ROWS), scales.split(_BLOCK_ROWS), strict=True
    ):
        out.copy_((block.float() / scale[:, None]).round_().clamp_(-127, 127))
    return values, scales


def has_dynamic_int8() -> bool:
    """Whether torch brings fbgemm's kernels for dynamic int8."""
    return (
        "fbgemm" in torch.backends.quantized.supported_engines
        and hasattr(torch, "_make_per_channel_quantized_tensor")
        and hasattr(torch.ops.quantized, "linear_prepack")
        and hasattr(torch.ops.quantized, "linear_dynamic")
    )


def _has_vnni() -> bool:
    """Without these instructions sums of 8-bit products can overflow: activations get 7 bits."""
    ask = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(ask()) if ask is not None else False
