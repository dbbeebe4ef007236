"""The generator of query images, and the discriminator of generated and proxy images.

The generator is that of Data-Free Model Extraction (Truong et al., CVPR 2021; "GeneratorA" of its
code): a linear layer, then twice an enlargement and 3×3 convolutions. It is made for any image of
at least 8×8 and is narrower (64, 32, 16 channels instead of 128, 128, 64): it has few queries to
learn from and should not cost more than the students.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT = 100
WIDTH = 32


class Generator(nn.Module):
    """Noise (N, latent) to images (N, C, H, W) in [0, 1].

    The last batch normalisation, without weights of its own, keeps the pixels' spread from
    collapsing (as in the source). The network always uses batch statistics, in training mode.

    Args:
        shape: (C, H, W) of an image.
        latent: number of noise values for an image.
        width: number of channels of the last hidden layer.
    """

    def __init__(
        self, shape: tuple[int, int, int], latent: int = LATENT, width: int = WIDTH
    ) -> None:
        super().__init__()
        channels, height, width_ = shape
        self.latent = latent
        self.sizes = [(-(-height // d), -(-width_ // d)) for d in (4, 2, 1)]
        first = self.sizes[0]
        self.seed = nn.Linear(latent, 2 * width * first[0] * first[1])
        self.norm = nn.BatchNorm2d(2 * width)
        self.coarse = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
        )
        self.fine = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.BatchNorm2d(width // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width // 2, channels, 3, padding=1),
            nn.BatchNorm2d(channels, affine=False),
        )

    def before_squash(self, noise: Tensor) -> Tensor:
        """Images before the squashing to [0, 1], for zeroth-order estimates."""
        x = self.norm(self.seed(noise).unflatten(1, (-1, *self.sizes[0])))
        x = self.coarse(F.interpolate(x, self.sizes[1]))
        out: Tensor = self.fine(F.interpolate(x, self.sizes[2]))
        return out

    def forward(self, noise: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return squash(self.before_squash(noise))

    def noise(self, count: int, draws: torch.Generator) -> Tensor:
        """New noise (count, latent)."""
        return torch.randn(count, self.latent, generator=draws)

    @torch.no_grad()
    def images(self, count: int, draws: torch.Generator) -> Tensor:
        """New images (count, C, H, W) in [0, 1], without gradients."""
        out: Tensor = self(self.noise(count, draws))
        return out


def squash(x: Tensor) -> Tensor:
    """Map any numbers to [0, 1] by a shifted tanh."""
    return (torch.tanh(x) + 1) / 2


def discriminator(shape: tuple[int, int, int], width: int = WIDTH) -> nn.Module:
    """Images to one logit (N, 1), large for proxy images (DCGAN: Radford et al., ICLR 2016)."""
    channels, height, width_ = shape
    cells = -(-height // 4) * -(-width_ // 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 3, 2, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * width * cells, 1),
    )
