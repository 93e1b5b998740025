"""One process of `benchmarks.train_step`: the paper's updates in plain PyTorch.

It needs PyTorch and nothing of this project: torchvision's ResNet-50 with 1000 fc features, the
decoder of the paper's Figure 6, a classifier of two fully connected layers, Adam, channels_last and
autocast.

protect: update (a) trains the decoder on a public batch, with the encoder in inference mode; update
(b) trains encoder and classifier on a private batch, with the decoder in inference mode. attack:
trains the decoder on cached features by the pixel loss. attack_all: adds a discriminator (spectral
normalisation) and VGG19's block1_conv1 to block5_conv1. VGG19 has random weights: the time does not
depend on the weights.
"""

import argparse
import itertools
import json
import resource
import statistics
import time

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

WARM_UP = 3
LAMBDA1, MU1, MU2 = 1.0, 0.03, 1.0


class Bottleneck(nn.Module):
    """The residual block of ResNet-50, stride on the 3x3."""

    def __init__(self, inputs, planes, stride):
        super().__init__()
        outputs = 4 * planes
        self.body = nn.Sequential(
            nn.Conv2d(inputs, planes, 1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(True),
            nn.Conv2d(planes, planes, 3, stride, 1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(True),
            nn.Conv2d(planes, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x):
        """[N, inputs, H, W] -> [N, 4 planes, H / stride, W / stride]."""
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


def resnet50():
    """Returns the encoder, to 1000 values."""
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for planes, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(blocks):
            layers.append(Bottleneck(channels, planes, stride if i == 0 else 1))
            channels = 4 * planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def decoder(size):
    """Returns the decoder of Figure 6."""
    side = size // 32
    layers = [nn.Linear(1000, 2048), nn.ReLU(True), nn.Linear(2048, 2048 * side * side)]
    layers += [nn.ReLU(True), nn.Unflatten(1, (2048, side, side))]
    widths = (2048, 1024, 512, 256, 64, 3)
    for inputs, outputs in itertools.pairwise(widths):
        layers.append(nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1, bias=outputs == 3))
        is_last = outputs == 3
        layers += [nn.Tanh()] if is_last else [nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


def discriminator(size):
    """Returns D: strided convolutions with leaky ReLUs, spectral normalisation, one logit."""
    layers, inputs, outputs = [], 3, 64
    while size >= 8:
        layers += [spectral_norm(nn.Conv2d(inputs, outputs, 3, 2, 1)), nn.LeakyReLU(0.2, True)]
        inputs, outputs, size = outputs, min(2 * outputs, 512), (size + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), spectral_norm(nn.Linear(inputs * size**2, 1)))


class VGG(nn.Module):
    """VGG19 up to block5_conv1; the first output of each block."""

    def __init__(self):
        super().__init__()
        self.blocks, inputs = nn.ModuleList(), 3
        for outputs, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1)):
            widths = [inputs] + [outputs] * count
            pairs = itertools.pairwise(widths)
            self.blocks.append(nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs))
            inputs = outputs
        self.requires_grad_(False)

    def forward(self, x):
        """[N, 3, S, S] -> five maps."""
        maps = []
        for block in self.blocks:
            if maps:
                x = functional.max_pool2d(x, 2)
            for i, convolution in enumerate(block):
                x = functional.relu(convolution(x))
                if i == 0:
                    maps.append(x)
        return maps


def protect_step(a, cast):
    """Returns a function that makes both updates of the protector."""
    enc, dec = channels_last(resnet50()), channels_last(decoder(a.size))
    f = nn.Sequential(nn.Linear(1000, 512), nn.ReLU(True), nn.Linear(512, 40))
    opt_dec = torch.optim.Adam(dec.parameters(), 1e-4)
    opt_enc = torch.optim.Adam([*enc.parameters(), *f.parameters()], 1e-4)
    x1, x2 = random_images(a), random_images(a)
    y = (torch.rand(a.batch, 40) > 0.5).float()

    def step():
        enc.eval(), dec.train()
        with cast():
            with torch.no_grad():
                z = enc(x2)
            loss = functional.mse_loss(dec(z).float(), x2)
        update(opt_dec, loss)
        enc.train(), dec.eval()
        dec.requires_grad_(False)
        with cast():
            z = enc(x1)
            utility = functional.binary_cross_entropy_with_logits(f(z).float(), y)
            loss = utility - LAMBDA1 * functional.mse_loss(dec(z).float(), x1)
        update(opt_enc, loss)
        dec.requires_grad_(True)
        return loss.item()

    return step


def attack_step(a, cast):
    """Returns the decoder attack's update on cached features, by the pixel loss."""
    dec = channels_last(decoder(a.size))
    opt = torch.optim.Adam(dec.parameters(), 1e-4)
    x, z = random_images(a), torch.randn(a.batch, 1000)

    def step():
        with cast():
            loss = functional.mse_loss(dec(z).float(), x)
        update(opt, loss)
        return loss.item()

    return step


def attack_all_step(a, cast):
    """Returns the decoder attack's update with D and the perceptual distance."""
    dec, d, g = (channels_last(net) for net in (decoder(a.size), discriminator(a.size), VGG()))
    opt = torch.optim.Adam(dec.parameters(), 1e-4)
    opt_d = torch.optim.Adam(d.parameters(), 2e-4, (0.5, 0.999))
    x, z = random_images(a), torch.randn(a.batch, 1000)
    bce = functional.binary_cross_entropy_with_logits

    def step():
        with cast():
            fake = dec(z).float()
            logits = d(torch.cat([x, fake.detach()])).float().squeeze(1)
            real, wrong = logits.split(a.batch)
            loss_d = bce(real, torch.ones_like(real)) + bce(wrong, torch.zeros_like(wrong))
        update(opt_d, loss_d)
        d.requires_grad_(False)
        with cast():
            logits = d(fake).float().squeeze(1)
            with torch.no_grad():
                target = g(x)
            distances = [
                functional.mse_loss(p.float(), q.float())
                for p, q in zip(g(fake), target, strict=True)
            ]
            loss = functional.mse_loss(fake, x) + MU2 * sum(distances)
            loss = loss + MU1 * bce(logits, torch.ones_like(logits))
        update(opt, loss)
        d.requires_grad_(True)
        return loss.item()

    return step


def update(optimizer, loss):
    """Makes one step of an optimizer."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def channels_last(net):
    """Returns the network with its maps in memory as [N, H, W, C]."""
    return net.to(memory_format=torch.channels_last)


def random_images(a):
    """Returns a batch in [-1, 1]."""
    values = torch.rand(a.batch, 3, a.size, a.size).mul(2).sub(1)
    return values.to(memory_format=torch.channels_last)


def main():
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser()
    steps = {"protect": protect_step, "attack": attack_step, "attack_all": attack_all_step}
    parser.add_argument("--what", choices=steps, default="protect")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=8)
    a = parser.parse_args()
    torch.manual_seed(0)
    in_bfloat16 = a.precision == "mixed_bfloat16"
    step = steps[a.what](a, lambda: torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16))
    for _ in range(WARM_UP):
        step()
    seconds = []
    for _ in range(a.steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"step_s": median, "images_per_s": a.batch / median, "peak_mib": peak}
    print(json.dumps(result | {"version": f"torch {torch.__version__}"}))


if __name__ == "__main__":
    main()
