"""Generation: from a context and a description to the codes of the target, step by step.

One pass over the prefix fills the cache, then every step samples K codes, one per codebook, each of
another frame (the delay). With guidance every row is computed twice, with and without its
conditions, and the difference is exaggerated. What is longer than the model can hear at once is
written in windows, each of which goes on from the end of the one before.

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
from stage_lite.held_weights import check_weights
from stage_lite.prefix import Prefix, build_prefix, has_context_row
from stage_lite.sampling import Sampler, check_sampling

Progress = bool | Callable[[int, int], Any]
Contexts = Int[Tensor, "_ _ _"] | Sequence[Int[Tensor, "_ _"] | None] | None


@dataclass(frozen=True)
class GeneratedCodes:
    """What came out, and what the model saw."""

    codes: Int[Tensor, "B K T"]  # the prompt first, if there was one
    sequence: Int[Tensor, "B K S"]  # context, token and codes, delayed; of the last window
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
    weights: str | None = None,
    window_frames: int | None = None,
    stride_frames: int | None = None,
    graph: bool = False,
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
        weights: "fp32", "bf16" or "int8" (see matrices.py); None: as the model is.
        window_frames: a longer target is written in windows of so many frames, at the memory of
            one. Each begins with the end of what is written and hears the part of the context that
            sounds with it, as if the music began there. None: one window whatever the length.
        stride_frames: frames that each window but the first adds; None: half a window.
        graph: every step does the same work in the same memory; on a GPU it is recorded once as a
            CUDA graph. See `decoder.Decoder`.

    Raises:
        StageLiteError: sizes that do not agree, a code or a setting out of range, a context for a
            model without context token.
    """
    job = _Job(
        lm, context_codes, descriptions, n_frames, cfg_coef, cfg_over, temperature, top_k, top_p,
        seed, prompt_codes, anchor_frames, weights, window_frames, stride_frames, graph,
    )  # fmt: skip
    for _ in job.run(progress):
        pass
    prefix = job.prefix()
    return GeneratedCodes(job.codes(), prefix.sequence, prefix, job.seconds_per_step)


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
    weights: str | None = None,
    window_frames: int | None = None,
    stride_frames: int | None = None,
    graph: bool = False,
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
        seed, prompt_codes, anchor_frames, weights, window_frames, stride_frames, graph,
    )  # fmt: skip
    return _chunks(job, frames_per_chunk, progress)


def _chunks(job: "_Job", frames_per_chunk: int, progress: Progress) -> Iterator[Tensor]:
    done = 0
    if job.n_prompt:
        done = job.n_prompt
        yield job.codes(0, done)
    steps = job.run(progress)
    try:
        for ready in steps:
            if ready - done >= frames_per_chunk or (ready == job.n_frames and ready > done):
                yield job.codes(done, ready)
                done = ready
    finally:
        steps.close()


class _Job:
    """One generation: checked arguments, the target as far as it is written, the window at work."""

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
        weights: str | None,
        window_frames: int | None,
        stride_frames: int | None,
        graph: bool,
    ):
        check_sampling(temperature, top_k, top_p)
        _check(cfg_coef, cfg_over, n_frames)
        check_weights(lm, weights)
        self.lm, self.n_q, self.n_frames = lm, lm.n_q, n_frames
        self.weights, self.graph, self.anchor_frames = weights, graph, anchor_frames
        device = lm.emb[0].weight.device
        self.n_batch = _batch_size(context_codes, descriptions, prompt_codes)
        self.contexts = _contexts(lm, context_codes, self.n_batch, device)
        texts = [None] * self.n_batch if descriptions is None else descriptions
        self.texts = [texts] * self.n_batch if isinstance(texts, str) else list(texts)
        prompt = _prompt(lm, prompt_codes, self.n_batch, n_frames, device)
        self.n_prompt = prompt.shape[2]
        generators = _generators(seed, self.n_batch, device)
        self.sampler = Sampler(temperature, top_k, top_p, generators)
        self.cfg_coef, self.cfg_over = cfg_coef, cfg_over
        self.encoded = _encode(lm, self.texts)
        self.null_text = _encode(lm, [None] * self.n_batch)
        self.target = prompt.new_full((self.n_batch, self.n_q, n_frames), lm.card)
        self.target[:, :, : self.n_prompt] = prompt
        self.windows = plan_windows(n_frames, self.n_prompt, window_frames, stride_frames)
        self.window_frames = window_frames
        self.n_steps = sum(end - have + self.n_q - 1 for _, have, end in self.windows)
        self.seconds_per_step = 0.0
        self.filled = self.n_prompt  # frames that stand in `target`
        self.now: _Window | None = None
        if self.windows:
            self._open(*self.windows[0])  # what does not fit is told before anything is computed

    def run(self, progress: Progress) -> Iterator[int]:
        """Write the target; after every step tell how many of its frames are ready."""
        report, close = _reporter(progress, self.n_steps)
        steps, seconds = 0, 0.0
        try:
            for number, (start, have, end) in enumerate(self.windows):
                if number:
                    self._open(start, have, end)
                for ready, taken in self.now.run(self._choose):
                    steps, seconds = steps + 1, seconds + taken
                    self.seconds_per_step = seconds / steps
                    report(steps)
                    yield start + ready
                self._fill(end)
        finally:
            close()

    def codes(self, start: int = 0, end: int | None = None) -> Tensor:
        """Frames start to end of the target, as far as they are ready: Int[B, K, end - start]."""
        end = self.n_frames if end is None else end
        if end > self.filled:
            self._fill(end)
        return self.target[:, :, start:end].clone()

    def prefix(self) -> Prefix:
        """What the model saw, of the last window if there are several, and what it wrote."""
        start, _, end = self.windows[-1] if self.windows else (0, 0, self.n_frames)
        return build_prefix(
            self._contexts_from(start),
            self.codes(start, end),
            special_token_id=self.lm.card,
            context_token_id=self.lm.card + 1,
            anchor_frames=self.anchor_frames,
        )

    def _open(self, start: int, have: int, end: int) -> None:
        self.now = None  # its cache goes before the next one comes
        self.now = _Window(self, self._contexts_from(start), start, have, end)

    def _fill(self, end: int) -> None:
        """Copy what the window has written of the frames before `end` into the target."""
        if self.now is not None and end > self.filled:
            first = self.now.start
            self.target[:, :, self.filled : end] = self.now.codes(self.filled - first, end - first)
            self.filled = end

    def _contexts_from(self, start: int) -> list[Tensor | None]:
        """The part of each context that sounds with the window that begins at frame `start`."""
        if self.window_frames is None:
            return self.contexts
        length = self.window_frames
        if self.anchor_frames is not None and self.anchor_frames > 0:
            length = min(length, self.anchor_frames)
        parts = [None if c is None else c[:, start : start + length] for c in self.contexts]
        return [None if c is None or not c.shape[1] else c for c in parts]

    def branches(self, contexts: list) -> tuple[list, list, bool]:
        """Contexts and texts of all rows, and whether the second half of them is unconditional."""
        none = [None] * self.n_batch
        without_context = none if self.cfg_over in ("both", "context") else contexts
        over_text = self.cfg_over in ("both", "text")
        without_text = none if over_text else self.texts
        without_encoded = self.null_text if over_text else self.encoded
        if self.cfg_coef == 0:
            return without_context, without_encoded, False
        if self.cfg_coef == 1 or not _differ(contexts, without_context, self.texts, without_text):
            return contexts, self.encoded, False
        return contexts + without_context, self.encoded + without_encoded, True

    @torch.inference_mode()
    def _choose(self, logits: Tensor) -> Tensor:
        """Codes [B, K, 1] of the next step."""
        logits = logits.float()
        if len(logits) > self.n_batch:
            conditional, unconditional = logits.split(self.n_batch)
            logits = torch.lerp(unconditional, conditional, float(self.cfg_coef))
        return self.sampler(logits)


class _Window:
    """Frames start to end of the target, of which those before `have` are known, and a decoder."""

    def __init__(self, job: _Job, contexts: list, start: int, have: int, end: int):
        contexts, encoded, two = job.branches(contexts)
        self.start, self.n_frames, self.n_known = start, end - start, have - start
        self.n_batch, self.n_q = job.n_batch, job.n_q
        target = job.target[:, :, start:end].clone()
        target[:, :, self.n_known :] = job.lm.card
        prefix = build_prefix(
            contexts,
            target.repeat(1 + two, 1, 1),
            special_token_id=job.lm.card,
            context_token_id=job.lm.card + 1,
            anchor_frames=job.anchor_frames,
        )
        self.sequence = prefix.sequence  # [branches * B, K, S], filled from left to right
        self.first = prefix.target_start + self.n_known  # the first step that is sampled
        self.decoder = Decoder(job.lm, prefix, encoded, job.weights, job.graph)

    def run(self, choose: Callable[[Tensor], Tensor]) -> Iterator[tuple[int, float]]:
        """Fill the sequence; after every step (frames that are ready, seconds it took)."""
        frames, steps = self.n_frames - self.n_known, torch.arange(self.n_q)
        # both branches get the same codes: rows as [branches, B]
        sequence, by_branch = self.sequence, self.sequence.unflatten(0, (-1, self.n_batch))
        logits = self.decoder.prefill(sequence[:, :, : self.first])
        for i, at in enumerate(range(self.first, sequence.shape[2])):
            started = time.perf_counter()
            if i:
                logits = self.decoder.step(sequence[:, :, at - 1])
            codes = choose(logits)  # [B, K, 1]
            # Codebook k now gets frame i - k. At both ends there is no such frame: what stands
            # there stays (late codebooks of context or prompt, special tokens).
            if not self.n_q - 1 <= i < frames:
                wanted = ((i >= steps) & (i - steps < frames)).to(codes.device)[:, None]
                codes = torch.where(wanted, codes, by_branch[..., at : at + 1])
            by_branch[..., at : at + 1] = codes
            taken = time.perf_counter() - started
            yield self.n_known + max(0, i + 2 - self.n_q), taken

    def codes(self, start: int, end: int) -> Tensor:
        """Frames start to end of this window, as far as they are ready: Int[B, K, end - start]."""
        before = self.sequence.shape[2] - self.n_q - self.n_frames
        return undelay(self.sequence[: self.n_batch, :, before + start : before + end + self.n_q])


def plan_windows(
    n_frames: int, n_prompt: int, window_frames: int | None, stride_frames: int | None
) -> list[tuple[int, int, int]]:
    """The windows in which a target is written: (first frame, first frame to write, end) of each.

    Args:
        n_frames: of the target, `n_prompt` of them known.
        window_frames: most frames of a window; None is one window for all.
        stride_frames: frames that each window but the first adds; what it holds before them is read
            again. None is half a window.

    Raises:
        StageLiteError: no frame of a window would be written, or none read again.
    """
    if n_prompt == n_frames:
        return []
    if window_frames is None:
        return [(0, n_prompt, n_frames)]
    if window_frames < 2 or int(window_frames) != window_frames:
        raise StageLiteError(f"window_frames is {window_frames}: expected a whole number from 2 on")
    stride = window_frames // 2 if stride_frames is None else stride_frames
    if not 1 <= stride < window_frames or int(stride) != stride:
        raise StageLiteError(
            f"stride_frames is {stride}: expected a whole number of at least 1 and less than "
            f"window_frames = {window_frames}, so that a window hears what stands before"
        )
    windows, have = [], n_prompt
    while have < n_frames:
        start = 0 if have < window_frames else have - (window_frames - stride)
        end = min(start + window_frames, n_frames)
        windows.append((start, have, end))
        have = end
    return windows


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
