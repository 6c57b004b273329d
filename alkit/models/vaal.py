"""The two networks of VAAL: an autoencoder of images, and a discriminator that tells labelled from unlabelled."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VAE(nn.Module):
    """Variational autoencoder of images (B, C, H, W) with a Gaussian code (B, latent); Sinha et al., ICCV 2019.

    The encoder halves the image by convolutions (kernel 4, stride 2) of width, 2, 4 and 8 × `width` channels until the
    shorter side is 2; the decoder mirrors it. 32×32 takes four, as in the paper; a size that does not divide is padded
    evenly and the reconstruction cropped. With `condition` the decoder sees one more number an image (TA-VAAL).
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent: int = 32, width: int = 128, condition: bool = False
    ) -> None:
        super().__init__()
        colours, height, wide = image_shape
        if min(image_shape) < 1:
            raise ValueError(f"image_shape: expected (C, H, W) of at least 1 each, not {image_shape}")
        halvings = max(1, math.ceil(math.log2(min(height, wide) / 2)))
        unit = 2**halvings
        base = [max(2, -(-side // unit)) for side in (height, wide)]
        channels = [width * min(2**level, 8) for level in range(halvings)]
        self.image_shape, self.padded = tuple(image_shape), (base[0] * unit, base[1] * unit)
        self.latent, self.condition = latent, condition

        down: list[nn.Module] = []
        for inner, outer in zip([colours, *channels[:-1]], channels, strict=True):
            down += [nn.Conv2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*down, nn.Flatten())
        self.mu = nn.Linear(channels[-1] * base[0] * base[1], latent)
        self.log_variance = nn.Linear(channels[-1] * base[0] * base[1], latent)

        start = (channels[-1], 2 * base[0], 2 * base[1])
        up: list[nn.Module] = [nn.Linear(latent + condition, math.prod(start)), nn.Unflatten(1, start)]
        for inner, outer in zip(channels[:0:-1], channels[-2::-1], strict=True):
            up += [nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]
        self.decoder = nn.Sequential(*up, nn.ConvTranspose2d(channels[0], colours, 1))

    @property
    def _margins(self) -> tuple[int, int]:
        """Rows and columns of padding above and to the left of an image."""
        return (self.padded[0] - self.image_shape[1]) // 2, (self.padded[1] - self.image_shape[2]) // 2

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code, each (B, latent), of images (B, C, H, W)."""
        top, left = self._margins
        rows, columns = self.padded[0] - images.shape[2], self.padded[1] - images.shape[3]
        hidden = self.encoder(F.pad(images, (left, columns - left, top, rows - top)))
        return self.mu(hidden), self.log_variance(hidden)

    def decode(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        """The reconstruction (B, C, H, W) of a code (B, latent), given `condition` (B,) where the network takes it."""
        (top, left), (_, height, wide) = self._margins, self.image_shape
        decoded: Tensor = self.decoder(join(code, condition, self.condition))
        return decoded[:, :, top : top + height, left : left + wide]

    def forward(
        self, images: Tensor, generator: torch.Generator, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, C, H, W) of a code drawn with `generator`, and the code's mean and log-variance."""
        mu, log_variance = self.encode(images)
        noise = torch.randn(mu.shape, generator=generator, device=mu.device)
        return self.decode(mu + noise * (log_variance / 2).exp(), condition), mu, log_variance


class Discriminator(nn.Module):
    """A code (B, latent) to the logit (B,) of being labelled; with `condition`, given one more number an image."""

    def __init__(self, latent: int = 32, condition: bool = False, hidden: int = 512) -> None:
        super().__init__()
        self.condition = condition
        self.layers = nn.Sequential(
            nn.Linear(latent + condition, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        logits: Tensor = self.layers(join(code, condition, self.condition)).squeeze(1)
        return logits


def begin_kaiming(vae: VAE, discriminator: Discriminator) -> None:
    """Kaiming's normal weights, biases of 0, as released programs begin (quirk `vae_kaiming_weights`).

    Theirs pass by the code's two layers and the transposed convolutions, which keep torch's own.
    """
    for part in (vae.encoder, vae.decoder, discriminator):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def join(code: Tensor, condition: Tensor | None, wanted: bool) -> Tensor:
    """The code (B, latent) with the condition (B,) as one more column where the network was made for one."""
    if wanted != (condition is not None):
        raise ValueError(f"condition: expected {'(B,), one number an image' if wanted else 'none'}")
    return code if condition is None else torch.cat([code, condition[:, None].to(code.dtype)], 1)
