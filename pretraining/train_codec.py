"""Train the nano codec from nothing on rendered stems, mixes and clicks.

    python pretraining/train_codec.py --corpus work/corpus --out work/codec

A spectral loss from the first step collapses the codebooks, so the stages are (in steps):
waveform terms alone; the log-mel distance fades in; the quantiser starts from k-means on a warm
encoder; later an adversarial stage. From `--freeze` on only the decoder learns, so that codes made
by then stay valid however long the decoder goes on; `--start CODEC` begins there with a codec that
was trained before, whose checkpoint is gone. Run it again to go on where it was: batch `n`
and the random numbers of step `n` depend on (seed, n) alone, so a resumed run equals a whole one.
"""

import argparse
import dataclasses
import json
import signal
import time
from pathlib import Path

import torch
from bf16_guard import guard
from codec_adversary import Adversary
from codec_losses import LogMelDistance, below_2_khz, normalised_mse
from segments import Segments, read_songs
from torch import Tensor

from stage_lite import checkpoint
from stage_lite.codec import (
    CodecConfig,
    build_codec,
    load_codec,
    restart_dead_codes,
    save_codec,
)
from stage_lite.interrupts import Interrupts

SEGMENT_FRAMES = 32
WARM_SEGMENTS = 160  # from which k-means makes the first codebooks


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a trained codec: only its decoder goes on")
    parser.add_argument("--steps", type=int, default=13000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this much time")
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--mel-from", type=int, default=500, help="fades in over 1000 steps")
    parser.add_argument("--quantise-from", type=int, default=1500)
    parser.add_argument("--adversary-from", type=int, default=11000)
    parser.add_argument("--freeze", type=int, default=5000, help="encoder and quantiser stop here")
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class CodecTraining:
    """Codec, discriminator, their optimizers and the averaged decoder."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.step = args, 0
        # Dead codes are restarted here (restart_dead_codes), not by audiocraft.
        self.config = CodecConfig(threshold_ema_dead_code=0)
        self.codec = build_codec(self.config, seed=args.seed)
        self.codec.requires_grad_(True)
        wrong = guard(self.codec)
        self.adversary = Adversary(args.seed, self._optimise)
        print("in fp32, as bf16 is wrong there:", wrong + self.adversary.wrong, flush=True)
        self.mean_decoder = build_codec(self.config, seed=args.seed).decoder.requires_grad_(False)
        parameters = [*self.codec.encoder.parameters(), *self.codec.decoder.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, betas=(0.8, 0.99), foreach=True)
        self.mel = LogMelDistance()

    def state(self) -> dict[str, Tensor]:
        return (
            checkpoint.pack("codec", self.codec.state_dict())
            | checkpoint.pack("mean_decoder", self.mean_decoder.state_dict())
            | checkpoint.pack("adversary", self.adversary.model.state_dict())
            | checkpoint.pack_optimizer("optimizer", self.optimizer)
            | checkpoint.pack_optimizer("adversary_optimizer", self.adversary.optimizer)
        )

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.codec.load_state_dict(checkpoint.unpack("codec", tensors))
        self.mean_decoder.load_state_dict(checkpoint.unpack("mean_decoder", tensors))
        self.adversary.model.load_state_dict(checkpoint.unpack("adversary", tensors))
        checkpoint.unpack_optimizer("optimizer", tensors, self.optimizer)
        checkpoint.unpack_optimizer("adversary_optimizer", tensors, self.adversary.optimizer)

    def start_from(self, folder: Path) -> None:
        """Take over a codec whose encoder and codebooks are final."""
        codec, config = load_codec(folder)
        if dataclasses.replace(config, threshold_ema_dead_code=0) != self.config:
            raise SystemExit(f"train_codec.py: {folder} is of another geometry than {self.config}")
        self.codec.load_state_dict(codec.state_dict())
        self.mean_decoder.load_state_dict(codec.decoder.state_dict())
        self.step = self.args.freeze

    def learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 100)
        if self.step < self.args.freeze:  # the encoder ends calm: falls to a sixth
            late = max(0.0, self.step / self.args.freeze - 0.4) / 0.6
            return self.args.learning_rate * warm * (1 - 0.83 * late)
        return self.args.learning_rate * 0.5 * 0.5 ** ((self.step - self.args.freeze) / 12000)

    def _seed(self) -> int:
        """Of all that is random in this step, so that it does not matter what ran before."""
        return self.args.seed * 1_000_003 + self.step

    @property
    def adversarial(self) -> bool:
        return self.step >= self.args.adversary_from

    def latents(self, real: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.codec.encoder(real)

    def train_step(self, real: Tensor) -> dict[str, float]:
        """One step on Float[B, 1, L]; returns the losses as numbers."""
        args, frozen = self.args, self.step >= self.args.freeze
        torch.manual_seed(self._seed())
        self.codec.train(not frozen)
        with torch.set_grad_enabled(not frozen):
            latents = self.latents(real).float()
            quantised, commit = latents, torch.zeros(())
            if self.step >= args.quantise_from:
                quantised, commit = self._quantise(latents, frozen)
        with torch.autocast("cpu", torch.bfloat16):
            fake = self.codec.decoder(quantised)
        fake = fake.float()
        # Above 2 kHz no phase survives the codes: asked for the waveform there, a decoder that is
        # alone with fixed codes turns the treble down.
        shapes = (below_2_khz(fake), below_2_khz(real)) if frozen else (fake, real)
        parts = {
            "l1": 10 * (shapes[0] - shapes[1]).abs().mean(),
            "mse": normalised_mse(*shapes) * (2.0 if self.step < args.quantise_from else 0.5),
        }
        fade = min(1.0, max(0.0, (self.step - args.mel_from) / 1000))
        if fade > 0:
            parts["mel"] = 6 * fade * self.mel(fake, real)
        if commit.requires_grad:
            parts["commit"] = 0.5 * commit
        if self.adversarial:
            half = slice(None, (len(real) + 1) // 2)  # it costs twice what the codec costs
            parts["adversary"] = self.adversary.learn(fake[half].detach(), real[half])
            parts["fool"], parts["features"] = self.adversary.losses(
                fake[half], real[half], self.step - args.adversary_from
            )
        loss = sum(value for name, value in parts.items() if name != "adversary")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimise(self.optimizer)
        self._average_decoder()
        if not frozen and self.step > args.quantise_from and self.step % 20 == 0:
            self.restarted = restart_dead_codes(self.codec, latents.detach())
        self.step += 1
        return {name: float(value.detach()) for name, value in parts.items()}

    def _quantise(self, latents: Tensor, frozen: bool) -> tuple[Tensor, Tensor]:
        quantizer, n_q = self.codec.quantizer, self.config.n_q
        if frozen:
            codes = quantizer.encode(latents)
            keep = n_q if torch.rand(()) < 0.8 else int(torch.randint(1, n_q, ()))
            return quantizer.decode(codes[:, :keep]), torch.zeros(())
        # Some batches do without the last codebooks, so that fewer than K decode well too.
        keep = n_q if torch.rand(()) < 0.8 else int(torch.randint(1, n_q, ()))
        quantizer.set_num_codebooks(keep)
        result = quantizer(latents, 50)
        quantizer.set_num_codebooks(n_q)
        return result.x, result.penalty

    def start_quantiser(self, latents: Tensor) -> None:
        """k-means on many latents [N, D, T], and the averages that audiocraft leaves wrong."""
        torch.manual_seed(self._seed())
        self.codec.train()
        with torch.no_grad():
            residual = latents
            for layer in self.codec.quantizer.vq.layers:
                book = layer._codebook
                flat = residual.transpose(1, 2).reshape(-1, residual.shape[1])
                book.init_embed_(flat)
                # audiocraft sets embed_avg = embed, which the next update divides by cluster_size
                mean = self.args.batch_size * SEGMENT_FRAMES / book.codebook_size
                book.cluster_size.mul_(mean / book.cluster_size.mean()).clamp_(min=0.1 * mean)
                book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
                nearest = book.decode(book.encode(flat))
                residual = residual - nearest.reshape(
                    residual.shape[0], -1, residual.shape[1]
                ).transpose(1, 2)

    def _optimise(self, optimizer: torch.optim.Optimizer, times: float = 1.0) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 5.0, foreach=True)
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate() * times
        optimizer.step()

    @torch.no_grad()
    def _average_decoder(self) -> None:
        decay = min(0.999, self.step / (self.step + 50))
        mean, now = list(self.mean_decoder.parameters()), list(self.codec.decoder.parameters())
        torch._foreach_lerp_(mean, now, 1 - decay)


@torch.no_grad()
def validate(training: CodecTraining, batch: Tensor) -> dict[str, float]:
    """Log-mel distance of the averaged decoder with 4 and 1 codebooks; share of codes in use."""
    codec, quantising = training.codec.eval(), training.step > training.args.quantise_from
    decode = training.mean_decoder.eval()
    latents = codec.encoder(batch)
    result = {"mel_without_quantiser": float(training.mel(decode(latents), batch))}
    if quantising:
        codes = codec.quantizer.encode(latents)
        for k in (1, 2, 4):
            fake = decode(codec.quantizer.decode(codes[:, :k]))
            result[f"mel_{k}"] = float(training.mel(fake, batch))
        result["used"] = [len(c.unique()) for c in codes.transpose(0, 1)]
    return result


def main() -> None:
    args = arguments()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started in the background
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    training = CodecTraining(args)
    path = args.out / "checkpoint.safetensors"
    if path.exists():
        tensors, meta = checkpoint.load_checkpoint(path)
        training.load(tensors)
        training.step = meta["step"]
        print(f"going on at step {training.step}", flush=True)
    elif args.start:
        training.start_from(args.start)
    length = SEGMENT_FRAMES * training.config.hop_length
    segments = Segments(read_songs(args.corpus, ("train",)), length, args.batch_size, args.seed)
    held_out = Segments(
        read_songs(args.corpus, ("valid", "test")) or segments.songs, length, 48, 99
    )
    validation = held_out.batch(0)
    log = (args.out / "log.jsonl").open("a")
    print(f"{len(segments.songs)} songs to train on, {len(held_out.songs)} held out", flush=True)

    def save() -> None:
        checkpoint.save_checkpoint(path, training.state(), {"step": training.step})
        codec = build_codec(training.config, seed=args.seed)
        codec.load_state_dict(training.codec.state_dict())
        codec.decoder.load_state_dict(training.mean_decoder.state_dict())
        save_codec(codec, training.config, args.out / "codec")

    def warm_up() -> None:
        many = Segments(segments.songs, length, WARM_SEGMENTS, args.seed + 7).batch(0)
        with torch.no_grad():
            training.start_quantiser(
                torch.cat([training.latents(p).float() for p in many.split(16)])
            )

    def tell() -> None:
        row = {k: round(sum(r.get(k, 0) for r in losses) / len(losses), 4) for k in losses[-1]}
        row = {"step": training.step, "seconds": round(time.time() - began, 1)} | row
        if training.step % 500 == 0:
            row |= validate(training, validation)
            row["restarted"] = getattr(training, "restarted", None)
        losses.clear()
        log.write(json.dumps(row) + "\n")
        log.flush()
        print(row, flush=True)

    began, losses, interrupts = time.time(), [], Interrupts(together=False)
    try:
        with interrupts.listening():
            while training.step < args.steps and time.time() - began < args.seconds:
                with interrupts.held():  # else one half of the models would be a step ahead
                    if training.step == args.quantise_from:
                        warm_up()
                    losses.append(training.train_step(segments.batch(training.step)))
                if training.step % 100 == 0:
                    tell()
                if training.step % args.save_every == 0:
                    save()
    except KeyboardInterrupt:
        print(f"stopped at step {training.step}; run the same call to go on", flush=True)
    finally:
        save()  # what was learned is kept


if __name__ == "__main__":
    main()
