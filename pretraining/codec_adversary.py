"""The discriminator of the codec's last stage: audiocraft's, over three resolutions of the STFT.

It learns to tell what the decoder makes from recordings (hinge loss); the decoder learns to be
taken for one, and to look alike in all the discriminator's layers (feature matching).
Source: Défossez et al. 2022, arXiv:2210.13438, sec. 3.4.
"""

from collections.abc import Callable

import torch
from bf16_guard import guard
from torch import Tensor

from stage_lite.upstream import audiocraft_classes

FOOL, FEATURES = 0.15, 2.0  # weights, beside 6 times the log-mel distance
RATE = 1.0  # learning rate of the discriminator, in those of the decoder
FADE_STEPS = 500  # in which both weights rise


class Adversary:
    """Discriminator and optimizer.

    Args:
        seed: of its first weights.
        optimise: (optimizer, factor of the learning rate) -> None: one clipped step.
    """

    def __init__(self, seed: int, optimise: Callable[[torch.optim.Optimizer, float], None]):
        audiocraft_classes()  # makes audiocraft importable on today's torch
        from audiocraft.adversarial import MultiScaleSTFTDiscriminator

        torch.manual_seed(seed + 1)
        self.model = MultiScaleSTFTDiscriminator(
            filters=16,
            n_ffts=[1024, 512, 256],
            hop_lengths=[256, 128, 64],
            win_lengths=[1024, 512, 256],
        )
        self.wrong = guard(self.model)
        self.optimise = optimise
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.8, 0.99), foreach=True)

    def learn(self, fake: Tensor, real: Tensor) -> Tensor:
        """One step on Float[B, 1, L] of both; returns its loss: 2 is chance."""
        with torch.autocast("cpu", torch.bfloat16):
            on_fake, _ = self.model(fake)
            on_real, _ = self.model(real)
        parts = [
            torch.relu(1 + f.float()).mean() + torch.relu(1 - r.float()).mean()
            for f, r in zip(on_fake, on_real, strict=True)
        ]
        loss = torch.stack(parts).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimise(self.optimizer, RATE)
        return loss.detach()

    def losses(self, fake: Tensor, real: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """What the decoder is asked for: to be taken for real, and alike features.

        Args:
            fake, real: Float[B, 1, L].
            step: since this stage began; the weights rise over `FADE_STEPS`.
        """
        self.model.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            on_fake, fake_maps = self.model(fake)
            with torch.no_grad():
                _, real_maps = self.model(real)
        self.model.requires_grad_(True)
        fade = min(1.0, (step + 1) / FADE_STEPS)
        fool = -torch.stack([f.float().mean() for f in on_fake]).mean()
        features = torch.stack([
            (f.float() - r.float()).abs().mean() / (r.float().abs().mean() + 1e-6)
            for fakes, reals in zip(fake_maps, real_maps, strict=True)
            for f, r in zip(fakes, reals, strict=True)
        ]).mean()  # fmt: skip
        return FOOL * fade * fool, FEATURES * fade * features
