"""The table of image data sets: to add one, add a row.

Means and standard deviations are those of the DeComFL authors' code
(github.com/ZidongLiu/DeComFL), so that curves are comparable. The actual values over the training
pixels are 0.2860 and 0.3530 for Fashion-MNIST, and deviations of 0.247, 0.243, 0.262 for CIFAR-10.
There is no augmentation (the authors crop and flip CIFAR-10 at random).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiso_ray.tasks.images.image_files import Split, read_cifar, read_idx


@dataclass(frozen=True)
class Original:
    """The files in which a data set was first published, any of them gzipped or not."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[Sequence[Path]], Split]


@dataclass(frozen=True)
class ImageSet:
    """A set of images with a training and a test split.

    Attributes:
        name: of the task.
        data: the Hugging Face dataset the task reads by default.
        shape: channels, height, width.
        mean, std: of each channel, in units of the stored values: a network reads (x - mean) / std.
        names: of the classes, in class order.
        original: None if scikit-learn includes the images.
    """

    name: str
    data: str
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    names: tuple[str, ...]
    original: Original | None = None


def _of_255(*shares: float) -> tuple[float, ...]:
    return tuple(255 * share for share in shares)


TEN = tuple(str(digit) for digit in range(10))
IDX = Original(
    train=("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    test=("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    read=read_idx,
)

# Alpaydin and Kaynak 1998, as in scikit-learn: 8×8, already divided by 16.
DIGITS = ImageSet("digits", "scikit-learn", (1, 8, 8), (0.0,), (1.0,), TEN)

DOWNLOADED = {
    # LeCun et al. 1998.
    "mnist": ImageSet(
        name="mnist",
        data="ylecun/mnist",
        shape=(1, 28, 28),
        mean=_of_255(0.1307),
        std=_of_255(0.3081),
        names=TEN,
        original=IDX,
    ),
    # Xiao et al. 2017 (arXiv 1708.07747).
    "fashion_mnist": ImageSet(
        name="fashion_mnist",
        data="zalando-datasets/fashion_mnist",
        shape=(1, 28, 28),
        mean=_of_255(0.5),
        std=_of_255(0.5),
        names=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
               "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        original=IDX,
    ),
    # Krizhevsky 2009.
    "cifar10": ImageSet(
        name="cifar10",
        data="uoft-cs/cifar10",
        shape=(3, 32, 32),
        mean=_of_255(0.4914, 0.4822, 0.4465),
        std=_of_255(0.2023, 0.1994, 0.2010),
        names=("airplane", "automobile", "bird", "cat", "deer",
               "dog", "frog", "horse", "ship", "truck"),
        original=Original(
            train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            test=("test_batch.bin",),
            read=read_cifar,
        ),
    ),
}  # fmt: skip
