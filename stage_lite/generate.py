"""Generation: from a context and a description to the codes of the target, step by step.

One pass over the prefix fills the cache, then every step samples K codes, one per codebook, each of
another frame (the delay). With guidance every row is computed twice, with and without its
conditions, and the difference is exaggerated.

Source: Copet et al. 2023, arXiv:2306.05284; Ho and Salimans 2022 (classifier-free guidance),
arXiv:2207.12598.   Notebook: 02_language_model.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from stage_lite.decoder import Decoder
from stage_lite.delay import check_codes, undelay
from stage_lite.errors import StageLiteError
from stage_lite.prefix import Prefix, build_prefix, has_context_row
from stage_lite.sampling import Sampler, check_sampling

Progress = bool | Callable[[int, int], Any]
Contexts = Int[Tensor, "_ _ _"] | Sequence[Int[Tensor, "_ _"] | None] | None


@dataclass(frozen=True)
class GeneratedCodes:
    """What came out, and what the model saw."""

    codes: Int[Tensor, "B K T"]  # the prompt first, if there was one
    sequence: Int[Tensor, "B K S"]  # context, token and codes, delayed
    prefix: Prefix  # of `sequence`, with mask and positions for a second look
    seconds_per_step: float  # wall clock, the pass over the prefix not counted


def generate_codes(
    lm: nn.Module,
    context_codes: Contexts,
    descriptions: str | Sequence[str | None] | None,
    n_frames: int,
    *,
    cfg_coef: float = 3.0,
    cfg_over: Literal["both", "text", "context"] = "both",
    temperature: float = 1.0,
    top_k: int = 250,
    top_p: float = 0.0,
    seed: int | Sequence[int] | None = None,
    prompt_codes: Int[Tensor, "B K Tp"] | None = None,
    anchor_frames: int | None = None,
    progress: Progress = False,
    dtype: torch.dtype | None = None,
) -> GeneratedCodes:
    """Generate the codes of one target per row.

    Args:
        lm: audiocraft's LMModel, with the context token if there is a context.
        context_codes: codes in [0, card) of what stands before the target: Int[B, K, Tc], or one
            Int[K, Tc] or None per row, or None for no context at all (plain MusicGen).
        descriptions: one text for all rows, or one (or None) per row.
        n_frames: length of the target in frames (50 a second), the prompt included.
        cfg_coef: guidance: unconditional + cfg_coef * (conditional - unconditional). 1 is
            conditional and 0 unconditional, both without the second branch's cost.
        cfg_over: what the unconditional branch lacks: "both" context and text, or one of them.
        temperature, top_k, top_p: see `sampling.sample`; temperature 0 is greedy.
        seed: row b draws from a source of its own, seeded with seed + b, or with seed[b]: what it
            draws does not depend on the other rows. None: other codes every time. No global random
            state is touched.
        prompt_codes: the beginning of the target, to be continued.
        anchor_frames: see `prefix.build_prefix`.
        progress: True shows a bar; a function is called with (steps done, steps in all).
        dtype: of weights and cache during generation; None: as the model is.

    Raises:
        StageLiteError: sizes that do not agree, a code or a setting out of range, a context for a
            model without context token.
    """
    job = _Job(
        lm, context_codes, descriptions, n_frames, cfg_coef, cfg_over, temperature, top_k, top_p,
        seed, prompt_codes, anchor_frames, dtype,
    )  # fmt: skip
    for _ in job.run(progress):
        pass
    codes = job.codes()
    prefix = build_prefix(
        job.contexts,
        codes,
        special_token_id=job.special_token_id,
        context_token_id=job.special_token_id + 1,
        anchor_frames=anchor_frames,
    )
    return GeneratedCodes(codes, prefix.sequence, prefix, job.seconds_per_step)


def stream_codes(
    lm: nn.Module,
    context_codes: Contexts,
    descriptions: str | Sequence[str | None] | None,
    n_frames: int,
    *,
    frames_per_chunk: int = 1,
    cfg_coef: float = 3.0,
    cfg_over: Literal["both", "text", "context"] = "both",
    temperature: float = 1.0,
    top_k: int = 250,
    top_p: float = 0.0,
    seed: int | Sequence[int] | None = None,
    prompt_codes: Int[Tensor, "B K Tp"] | None = None,
    anchor_frames: int | None = None,
    progress: Progress = False,
    dtype: torch.dtype | None = None,
) -> Iterator[Int[Tensor, "B K t"]]:
    """The same codes as `generate_codes`, handed out while they are made.

    A frame is ready when its last codebook is, K - 1 steps after its first. The prompt comes as the
    first chunk. Closing the iterator early stops the work and the progress bar. Arguments are
    checked at the call, not at the first chunk.

    Args:
        frames_per_chunk: new frames to wait for before handing them out; the last chunk may be
            shorter.
        (others): as for `generate_codes`.
    """
    if frames_per_chunk < 1:
        raise StageLiteError(f"frames_per_chunk is {frames_per_chunk}: expected at least 1")
    job = _Job(
        lm, context_codes, descriptions, n_frames, cfg_coef, cfg_over, temperature, top_k, top_p,
        seed, prompt_codes, anchor_frames, dtype,
    )  # fmt: skip
    return _chunks(job, frames_per_chunk, progress)


def _chunks(job: "_Job", frames_per_chunk: int, progress: Progress) -> Iterator[Tensor]:
    done = 0
    if job.n_prompt:
        done = job.n_prompt
        yield job.codes()[:, :, :done]
    steps = job.run(progress)
    try:
        for ready in steps:
            if ready - done >= frames_per_chunk or (ready == job.n_frames and ready > done):
                yield job.codes(done, ready)
                done = ready
    finally:
        steps.close()


class _Job:
    """One generation: checked arguments, the sequence that is being filled, the decoder."""

    def __init__(
        self,
        lm: nn.Module,
        context_codes: Contexts,
        descriptions: str | Sequence[str | None] | None,
        n_frames: int,
        cfg_coef: float,
        cfg_over: str,
        temperature: float,
        top_k: int,
        top_p: float,
        seed: int | Sequence[int] | None,
        prompt_codes: Tensor | None,
        anchor_frames: int | None,
        dtype: torch.dtype | None,
    ):
        check_sampling(temperature, top_k, top_p)
        _check(cfg_coef, cfg_over, n_frames)
        self.special_token_id = lm.card
        self.n_q, self.n_frames = lm.n_q, n_frames
        device = lm.emb[0].weight.device
        n_batch = _batch_size(context_codes, descriptions, prompt_codes)
        contexts = _contexts(lm, context_codes, n_batch, device)
        texts = [None] * n_batch if descriptions is None else descriptions
        texts = [texts] * n_batch if isinstance(texts, str) else list(texts)
        prompt = _prompt(lm, prompt_codes, n_batch, n_frames, device)
        self.n_prompt = prompt.shape[2]
        self.sampler = Sampler(temperature, top_k, top_p, _generators(seed, n_batch, device))

        without_context = [None] * n_batch if cfg_over in ("both", "context") else contexts
        without_text = [None] * n_batch if cfg_over in ("both", "text") else texts
        self.cfg_coef: float | None = None  # of two branches; None: there is one
        if cfg_coef == 0:
            contexts, texts = without_context, without_text
        elif cfg_coef != 1 and _differ(contexts, without_context, texts, without_text):
            self.cfg_coef = float(cfg_coef)
        self.contexts = contexts
        branches = 1 if self.cfg_coef is None else 2
        target = prompt.new_full((n_batch, self.n_q, n_frames), self.special_token_id)
        target[:, :, : self.n_prompt] = prompt
        prefix = build_prefix(
            contexts if branches == 1 else contexts + without_context,
            target.repeat(branches, 1, 1),
            special_token_id=self.special_token_id,
            context_token_id=self.special_token_id + 1,
            anchor_frames=anchor_frames,
        )
        self.n_batch = n_batch
        self.sequence = prefix.sequence  # [branches * B, K, S], filled from left to right
        self.first = prefix.target_start + self.n_prompt  # the first step that is sampled
        self.n_steps = self.sequence.shape[2] - self.first if n_frames > self.n_prompt else 0
        self.seconds_per_step = 0.0
        encoded = _encode(lm, texts)
        if branches == 2:
            encoded = encoded + _encode(lm, without_text)
        self.decoder = Decoder(lm, prefix, encoded, dtype) if self.n_steps else None

    def run(self, progress: Progress) -> Iterator[int]:
        """Fill the sequence; after every step tell how many frames of the target are ready."""
        if self.decoder is None:
            return
        frames, steps = self.n_frames - self.n_prompt, torch.arange(self.n_q)
        report, close = _reporter(progress, self.n_steps)
        # both branches get the same codes: rows as [branches, B]
        sequence, by_branch = self.sequence, self.sequence.unflatten(0, (-1, self.n_batch))
        try:
            logits = self.decoder.prefill(sequence[:, :, : self.first])
            started = time.perf_counter()
            for i, at in enumerate(range(self.first, self.first + self.n_steps)):
                if i:
                    logits = self.decoder.step(sequence[:, :, at - 1])
                codes = self._choose(logits)  # [B, K, 1]
                # Codebook k now gets frame i - k. At both ends there is no such frame: what stands
                # there stays (late codebooks of context or prompt, special tokens).
                if not self.n_q - 1 <= i < frames:
                    wanted = ((i >= steps) & (i - steps < frames)).to(codes.device)[:, None]
                    codes = torch.where(wanted, codes, by_branch[..., at : at + 1])
                by_branch[..., at : at + 1] = codes
                self.seconds_per_step = (time.perf_counter() - started) / (i + 1)
                report(i + 1)
                yield self.n_prompt + max(0, i + 2 - self.n_q)
        finally:
            close()

    def codes(self, start: int = 0, end: int | None = None) -> Tensor:
        """Frames start to end of the target, as far as they are ready: Int[B, K, end - start]."""
        n_before = self.sequence.shape[2] - self.n_q - self.n_frames
        return undelay(self.sequence[: self.n_batch])[:, :, n_before:][:, :, start:end]

    @torch.inference_mode()
    def _choose(self, logits: Tensor) -> Tensor:
        """Codes [B, K, 1] of the next step."""
        if self.cfg_coef is not None:
            conditional, unconditional = logits.split(self.n_batch)
            logits = torch.lerp(unconditional, conditional, self.cfg_coef)
        return self.sampler(logits)


# --- checks and small parts ----------------------------------------------------------------------


def _check(cfg_coef: float, cfg_over: str, n_frames: int) -> None:
    if cfg_over not in ("both", "text", "context"):
        raise StageLiteError(f"cfg_over is {cfg_over!r}: expected 'both', 'text' or 'context'")
    if not abs(cfg_coef) < float("inf"):
        raise StageLiteError(f"cfg_coef is {cfg_coef}: expected a finite number, often 1 to 5")
    if n_frames < 0 or int(n_frames) != n_frames:
        raise StageLiteError(f"n_frames is {n_frames}: expected 0 or a positive integer")


def _batch_size(
    contexts: Any, descriptions: str | Sequence[str | None] | None, prompt: Tensor | None
) -> int:
    sizes = {
        "context_codes": None if contexts is None else len(contexts),
        "descriptions": None
        if descriptions is None or isinstance(descriptions, str)
        else len(descriptions),
        "prompt_codes": None if prompt is None else len(prompt),
    }
    given = {name: size for name, size in sizes.items() if size is not None}
    if len(set(given.values())) > 1:
        raise StageLiteError(
            f"rows do not agree: {', '.join(f'{n} has {s}' for n, s in given.items())}; "
            "expected the same number, one per row of the batch"
        )
    size = next(iter(given.values()), 1)
    if size == 0:
        raise StageLiteError("the batch is empty: expected at least one row")
    return size


def _contexts(lm: nn.Module, contexts: Contexts, n_batch: int, device: torch.device) -> list:
    rows = [None] * n_batch if contexts is None else list(contexts)
    rows = [None if row is None else row.to(device) for row in rows]
    if any(row is not None for row in rows) and not has_context_row(lm):
        raise StageLiteError(
            "a context was given, but this model has no context token: its embedding has "
            f"{lm.emb[0].weight.shape[0]} rows for card {lm.card}. "
            "Try: context=None, or a model fine-tuned after extend_embedding"
        )
    return rows


def _prompt(
    lm: nn.Module, prompt: Tensor | None, n_batch: int, n_frames: int, device: torch.device
) -> Tensor:
    if prompt is None:
        return torch.zeros(n_batch, lm.n_q, 0, dtype=torch.long, device=device)
    if prompt.dim() != 3 or prompt.shape[1] != lm.n_q:
        raise StageLiteError(
            f"prompt_codes has the shape {list(prompt.shape)}: "
            f"expected [{n_batch}, {lm.n_q}, frames]"
        )
    if prompt.shape[2] > n_frames:
        raise StageLiteError(
            f"prompt_codes has {prompt.shape[2]} frames, the target n_frames = {n_frames}: "
            "expected a prompt that is not longer than the target, which contains it"
        )
    check_codes(prompt, lm.card, "prompt_codes")
    return prompt.to(device)


def _generators(
    seed: int | Sequence[int] | None, n_batch: int, device: torch.device
) -> list[torch.Generator]:
    generators = [torch.Generator(device=device) for _ in range(n_batch)]
    if seed is None:
        for generator in generators:
            generator.seed()
        return generators
    one = isinstance(seed, Integral)  # NumPy's integers too
    seeds = [int(seed) + b for b in range(n_batch)] if one else list(seed)
    if len(seeds) != n_batch:
        raise StageLiteError(f"seed has {len(seeds)} entries: expected {n_batch}, one per row")
    return [g.manual_seed(int(s)) for g, s in zip(generators, seeds, strict=True)]


def _differ(contexts: list, without_context: list, texts: list, without_text: list) -> bool:
    """Whether the two branches would be given anything different."""
    return any(c is not w for c, w in zip(contexts, without_context, strict=True)) or any(
        (t or "").strip() != (w or "").strip() for t, w in zip(texts, without_text, strict=True)
    )


@torch.inference_mode()
def _encode(lm: nn.Module, texts: Sequence[str | None]) -> list[Tensor | None]:
    """Each description alone, so that none is padded to its neighbour's length."""
    from stage_lite.text import encode_text

    known: dict[str | None, Tensor | None] = {None: None}
    for text in texts:
        if text not in known:
            encoded, mask = encode_text(lm, [text])
            known[text] = None if encoded is None else (encoded * mask.unsqueeze(-1))[0]
    return [known[text] for text in texts]


def _reporter(progress: Progress, total: int) -> tuple[Callable[[int], Any], Callable[[], Any]]:
    if callable(progress):
        return lambda done: progress(done, total), lambda: None
    if not progress:
        return lambda done: None, lambda: None
    from tqdm.auto import tqdm

    bar = tqdm(total=total, desc="generating", unit="step")
    return lambda done: bar.update(), bar.close
