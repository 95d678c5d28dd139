"""What the codec's decoder is asked for: a multi-scale log-mel distance, and waveform terms."""

import torch
from librosa.filters import mel as mel_filters
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d

SCALES = ((256, 32), (512, 48), (1024, 80), (2048, 96))  # (n_fft, n_mels), hop = n_fft // 4


class LogMelDistance(nn.Module):
    """Mean over scales of mean |log10 mel(x) - log10 mel(y)|, with a floor at -100 dB."""

    def __init__(self, sample_rate: int = 32000):
        super().__init__()
        for n_fft, n_mels in SCALES:
            filters = mel_filters(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
            self.register_buffer(f"filters_{n_fft}", torch.from_numpy(filters), persistent=False)
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)

    def log_mel(self, wav: Tensor, n_fft: int) -> Tensor:
        """Float[B, L] -> Float[B, n_mels, frames], log10 of the magnitude."""
        window = getattr(self, f"window_{n_fft}")
        spectrum = torch.stft(wav, n_fft, n_fft // 4, window=window, return_complex=True)
        power = torch.view_as_real(spectrum).square().sum(-1)
        magnitude = (
            power / window.square().sum() + 1e-12
        ).sqrt()  # the floor keeps gradients finite
        return torch.log10(getattr(self, f"filters_{n_fft}") @ magnitude + 1e-5)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        fake, real = fake.flatten(0, 1), real.flatten(0, 1)
        parts = []
        for n_fft, _ in SCALES:
            with torch.no_grad():
                wanted = self.log_mel(real, n_fft)
            parts.append((self.log_mel(fake, n_fft) - wanted).abs().mean())
        return torch.stack(parts).mean()


def normalised_mse(fake: Tensor, real: Tensor) -> Tensor:
    """Squared error over the energy of the real segment: quiet music counts as much as loud."""
    energy = real.square().mean(dim=(1, 2)) + 1e-4
    return ((fake - real).square().mean(dim=(1, 2)) / energy).mean()


def below_2_khz(wav: Tensor) -> Tensor:
    """Float[B, 1, L] at 32 kHz -> means of 16 samples, which are deaf at 2 kHz and nearly above."""
    return avg_pool1d(wav, 16, 4)
