"""MNIST, Fashion-MNIST and CIFAR-10: the networks, every way the images come in, a short run."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.method.layout import dimension
from hiso_ray.tasks.contract import views
from hiso_ray.tasks.images.image_files import Split
from hiso_ray.tasks.images.image_sets import DIGITS, DOWNLOADED
from hiso_ray.tasks.images.images import read
from hiso_ray.tasks.images.networks import initial_weights, layout_of, network

CPU = torch.device("cpu")
Splits = tuple[Split, Split]


@pytest.fixture(scope="module")
def scans() -> Splits:
    """200 and 100 of scikit-learn's digits, 8×8, drawn three times as large on 28×28."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = (pixels.reshape(-1, 1, 8, 8) * 15).astype(np.uint8)
    large = np.pad(small.repeat(3, 2).repeat(3, 3), ((0, 0), (0, 0), (2, 2), (2, 2)))
    return Split(large[:200], labels[:200]), Split(large[200:300], labels[200:300])


@pytest.fixture(scope="module")
def photos() -> Splits:
    """20 and 10 random pictures of CIFAR-10's shape."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(30) % 10
    return Split(pixels[:20], labels[:20]), Split(pixels[20:], labels[20:])


def write_idx(folder: Path, splits: Splits, suffix: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    pack = gzip.compress if suffix else bytes
    for prefix, (images, labels) in zip(("train", "t10k"), splits, strict=True):
        sizes = np.array([len(images), *images.shape[2:], len(labels)], ">u4").tobytes()
        files = {
            "images-idx3": b"\0\0\x08\x03" + sizes[:12] + images.tobytes(),
            "labels-idx1": b"\0\0\x08\x01" + sizes[12:] + labels.astype(np.uint8).tobytes(),
        }
        for name, content in files.items():
            (folder / f"{prefix}-{name}-ubyte{suffix}").write_bytes(pack(content))
    return folder


def write_cifar(folder: Path, splits: Splits) -> Path:
    folder.mkdir(exist_ok=True)
    train, test = (
        np.concatenate([labels[:, None].astype(np.uint8), images.reshape(len(images), -1)], axis=1)
        for images, labels in splits
    )
    for number, part in enumerate(np.array_split(train, 5), start=1):
        (folder / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    (folder / "test_batch.bin").write_bytes(test.tobytes())
    return folder


def png(image: np.ndarray) -> dict[str, Any]:
    out = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def write_parquet(folder: Path, splits: Splits, column: str = "image", parts: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    for split, (images, labels) in zip(("train", "test"), splits, strict=True):
        for part, rows in enumerate(np.array_split(np.arange(len(labels)), parts)):
            table = pyarrow.table(
                {column: [png(images[i]) for i in rows], "label": labels[rows].tolist()}
            )
            name = f"{split}-{part:05}-of-{parts:05}.parquet"
            pyarrow.parquet.write_table(table, folder / name)
    return folder


def write_hub_parquet(folder: Path, splits: Splits, column: str = "image") -> Path:
    """As the hub writes it: with the features (image, class names) in the file's metadata."""
    import datasets

    features = datasets.Features(
        {column: datasets.Image(), "label": datasets.ClassLabel(num_classes=10)}
    )
    for split, (images, labels) in zip(("train", "test"), splits, strict=True):
        columns = {column: [png(image) for image in images], "label": labels}
        table = datasets.Dataset.from_dict(columns, features)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def mnist(
    experiment: Callable[..., Experiment], tmp_path: Path, scans: Splits
) -> Callable[..., Experiment]:
    folder = write_idx(tmp_path / "mnist", scans)

    def make(**dotted: Any) -> Experiment:
        base = {"task.name": "mnist", "task.model": "auto", "task.data": str(folder)}
        return tasks.resolve(experiment(**(base | dotted)))

    return make


@pytest.mark.parametrize(
    ("name", "model", "weights"),
    [
        ("mnist", "cnn", 28_938),
        ("fashion_mnist", "cnn", 1_199_882),
        ("cifar10", "cnn", 62_006),
        ("mnist", "mlp-32", 25_450),
        ("cifar10", "mlp-32", 98_666),
        ("digits", "mlp-32", 2_410),
    ],
)
def test_sizes_and_shapes(name: str, model: str, weights: int) -> None:
    images = ({"digits": DIGITS} | DOWNLOADED)[name]
    before = torch.get_rng_state()
    module = network(model, images)
    assert torch.equal(torch.get_rng_state(), before)
    layout = layout_of(module)
    assert dimension(layout) == weights
    x0 = torch.from_numpy(initial_weights(layout, np.random.default_rng(0)))
    module.load_state_dict(views(x0, layout))
    assert module(torch.zeros(3, *images.shape)).shape == (3, len(images.names))


def test_a_measured_mask_of_a_convolution(mnist: Callable[..., Experiment]) -> None:
    mask = {"task.sparse_by": "sensitivity", "task.sparse_fraction": 0.2}
    e = mnist(**mask, **{"task.validation_examples": 5})
    prepared = tasks.prepare(e)
    task = tasks.build(e, prepared, CPU)
    assert {name for name, _ in task.layout} >= {"conv1.weight", "conv2.weight", "output.weight"}
    weights = torch.tensor(prepared.x0) + torch.tensor([[0.0], [0.01]])
    batch = task.batch(np.arange(6), np.arange(9, 12))
    one_by_one = [task.losses(x, [batch]) for x in weights]
    assert task.losses_at(weights, [batch]) == pytest.approx(np.array(one_by_one), rel=1e-5)


def test_forward_is_the_network_it_says(mnist: Callable[..., Experiment], scans: Splits) -> None:
    e = mnist()
    prepared = tasks.prepare(e)
    task = tasks.build(e, prepared, CPU)
    x = torch.tensor(prepared.x0)
    w = views(x, task.layout)
    images = (torch.tensor(scans[0].images[:5]) / 255 - 0.1307) / 0.3081
    hidden = functional.conv2d(images, w["conv1.weight"], w["conv1.bias"], padding=2)
    hidden = functional.max_pool2d(torch.relu(hidden), 2)
    hidden = functional.conv2d(hidden, w["conv2.weight"], w["conv2.bias"], padding=2)
    hidden = functional.max_pool2d(torch.relu(hidden), 2)
    logits = hidden.reshape(5, 1568) @ w["output.weight"].T + w["output.bias"]
    expected = functional.cross_entropy(logits, torch.tensor(scans[0].labels[:5]))
    assert task.losses(x, [task.batch(np.arange(5))])[0] == pytest.approx(float(expected), rel=1e-5)


def test_colours_are_normalised_by_their_own_mean(
    experiment: Callable[..., Experiment], tmp_path: Path, photos: Splits
) -> None:
    folder = write_cifar(tmp_path / "bin", photos)
    dotted = {"task.name": "cifar10", "task.model": "auto", "task.data": str(folder)}
    e = tasks.resolve(experiment(**dotted))
    inputs, labels, sizes, _ = tasks.build(e, tasks.prepare(e), CPU).batch(np.array([7, 3]))
    blue = (photos[0].images[7, 2] / 255 - 0.4465) / 0.2010
    assert inputs[0, 2].numpy() == pytest.approx(blue, rel=1e-4, abs=1e-5)
    assert labels.tolist() == [7, 3]
    assert sizes == (2,)


def test_initial_weights_are_what_torch_draws(mnist: Callable[..., Experiment]) -> None:
    layout = layout_of(network("cnn", DOWNLOADED["mnist"]))
    ours = views(torch.from_numpy(tasks.prepare(mnist()).x0), layout)
    for name, fan_in in (("conv1", 25), ("conv2", 16 * 25), ("output", 1568)):
        for kind in ("weight", "bias"):
            largest = float(ours[f"{name}.{kind}"].abs().max())
            assert 0.6 / fan_in**0.5 < largest <= 1 / fan_in**0.5
    again, other = tasks.prepare(mnist()), tasks.prepare(mnist(seed=1))
    assert np.array_equal(again.x0, tasks.prepare(mnist()).x0)
    assert not np.array_equal(again.x0, other.x0)
    assert np.array_equal(again.arrays["eval_x"], other.arrays["eval_x"])


def test_every_format_reads_to_the_same_arrays(
    tmp_path: Path, scans: Splits, photos: Splits
) -> None:
    for folder in ("hub", "hub-cifar"):
        (tmp_path / folder).mkdir()
    gray = [
        write_idx(tmp_path / "idx", scans),
        write_idx(tmp_path / "gz", scans, ".gz"),
        write_parquet(tmp_path / "parquet", scans, parts=3),
        write_hub_parquet(tmp_path / "hub", scans),
    ]
    colour = [
        write_cifar(tmp_path / "bin", photos),
        write_parquet(tmp_path / "parquet-cifar", photos, column="img"),
        write_hub_parquet(tmp_path / "hub-cifar", photos, column="img"),
    ]
    for name, folders, written in (("mnist", gray, scans), ("cifar10", colour, photos)):
        for folder in folders:
            for split, expected in zip(read(DOWNLOADED[name], str(folder)), written, strict=True):
                assert np.array_equal(split.images, expected.images), folder
                assert np.array_equal(split.labels, expected.labels), folder
                assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)


def test_the_hub_gives_the_same_arrays(
    tmp_path: Path, scans: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    folder = write_hub_parquet(tmp_path, scans)
    files = {split: str(folder / f"{split}-00000-of-00001.parquet") for split in ("train", "test")}
    table = datasets.load_dataset("parquet", data_files=files)
    monkeypatch.setattr(datasets, "load_dataset", {"ylecun/mnist": table}.__getitem__)
    train, test = read(DOWNLOADED["mnist"], DOWNLOADED["mnist"].data)
    assert np.array_equal(train.images, scans[0].images)
    assert np.array_equal(test.labels, scans[1].labels)


def test_without_a_hub_the_words_say_which_files_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(name: str) -> None:
        raise ConnectionError(f"Couldn't reach {name!r}\nand more")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    words = r"ylecun/mnist: .*ConnectionError: Couldn't reach 'ylecun/mnist'\).*train-\*.parquet"
    with pytest.raises(ValueError, match=words + r".*t10k-labels-idx1-ubyte \(or .gz\)"):
        read(DOWNLOADED["mnist"], "ylecun/mnist")


def change(path: Path, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(path.read_bytes()))


def one_class_more(splits: Splits) -> Splits:
    return Split(splits[0].images, splits[0].labels + (splits[0].labels == 9)), splits[1]


BAD_FOLDERS: dict[str, tuple[str, Callable[[Path, Splits, Splits], Any], str]] = {
    "empty": ("mnist", lambda f, s, p: f.mkdir(), "no images of mnist there .*found none"),
    "absent": ("mnist", lambda f, s, p: None, "no such folder; what works is a local folder"),
    "file": ("mnist", lambda f, s, p: f.write_text("x"), "a file; what works is"),
    "others": (
        "cifar10",
        lambda f, s, p: write_idx(f, s),
        "no images of cifar10 there .*train-images.*data_batch_5.bin, test_batch.bin",
    ),
    "pickled": (
        "cifar10",
        lambda f, s, p: (f.mkdir(), (f / "data_batch_1").write_bytes(b"\x80\x04.")),
        "data_batch_1 is of the Python version .*pickles.*data_batch_1.bin",
    ),
    "twice": (
        "mnist",
        lambda f, s, p: (write_idx(f, s), write_parquet(f, s)),
        "more than once",
    ),
    "lacking": (
        "cifar10",
        lambda f, s, p: (write_cifar(f, p) / "data_batch_3.bin").unlink(),
        "lacks data_batch_3.bin",
    ),
    "no test": (
        "mnist",
        lambda f, s, p: (write_parquet(f, s) / "test-00000-of-00001.parquet").unlink(),
        "lacks test-",
    ),
    "magic": (
        "mnist",
        lambda f, s, p: change(write_idx(f, s) / "train-images-idx3-ubyte", lambda b: b"PK" + b),
        "no IDX file of images: it begins with 504b0000, not 00000803",
    ),
    "truncated": (
        "mnist",
        lambda f, s, p: change(write_idx(f, s) / "t10k-labels-idx1-ubyte", lambda b: b[:-1]),
        "t10k-labels-idx1-ubyte is damaged: 107 bytes, by its header 108",
    ),
    "gzip": (
        "mnist",
        lambda f, s, p: change(
            write_idx(f, s, ".gz") / "train-images-idx3-ubyte.gz", lambda b: b[:-99]
        ),
        "cannot be decompressed",
    ),
    "unrelated": (
        "mnist",
        lambda f, s, p: write_idx(f, (Split(s[0].images, s[0].labels[:-1]), s[1])),
        "200 images, .* 199 labels",
    ),
    "no images": (
        "mnist",
        lambda f, s, p: write_idx(f, (s[0], Split(s[1].images[:0], s[1].labels[:0]))),
        r"\(test\): its labels are none",
    ),
    "records": (
        "cifar10",
        lambda f, s, p: change(write_cifar(f, p) / "test_batch.bin", lambda b: b + b"\0"),
        "test_batch.bin is damaged: 30731 bytes are no whole number of records of 3073",
    ),
    "too many classes": (
        "fashion_mnist",
        lambda f, s, p: write_idx(f, one_class_more(s)),
        r"\(train\): its labels are 0, 1.*10; fashion_mnist has 10 classes, 0 to 9",
    ),
    "too few classes": (
        "mnist",
        lambda f, s, p: write_idx(f, (Split(s[0].images, s[0].labels % 5), s[1])),
        r"its labels are 0, 1, 2, 3, 4; mnist has 10",
    ),
    "size": (
        "mnist",
        lambda f, s, p: write_idx(f, (Split(s[0].images[..., :20], s[0].labels), s[1])),
        "its images are 1×28×20, those of mnist 1×28×28",
    ),
    "size, encoded": (
        "mnist",
        lambda f, s, p: write_parquet(f, (Split(s[0].images[..., :20], s[0].labels), s[1])),
        "row 1: the image is L 20×28, not L 28×28",
    ),
    "colour": (
        "cifar10",
        lambda f, s, p: write_parquet(f, (Split(p[0].images[:, :1], p[0].labels), p[1])),
        "row 1: the image is L 32×32, not RGB 32×32",
    ),
    "columns": (
        "mnist",
        lambda f, s, p: write_parquet(f, s, column="picture"),
        "no column image or img; it has picture, label",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(case: str, tmp_path: Path, scans: Splits, photos: Splits) -> None:
    name, make, words = BAD_FOLDERS[case]
    make(tmp_path / "data", scans, photos)
    with pytest.raises(ValueError, match=words):
        read(DOWNLOADED[name], str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": [{"bytes": b"no image", "path": None}], "label": [0]}, "cannot be decoded"),
        ({"image": [{"bytes": None, "path": "a.png"}], "label": [0]}, "holds no image bytes"),
        ({"image": [[1, 2, 3]], "label": [0]}, "row 1: holds no image bytes"),
        ({"image": [{"bytes": b"", "path": None}], "label": ["three"]}, "label holds <U5"),
        ({"image": [{"bytes": b"", "path": None}]}, "no column label; it has image"),
    ],
)
def test_bad_tables(columns: dict[str, Any], words: str, tmp_path: Path, scans: Splits) -> None:
    folder = write_parquet(tmp_path / "data", (scans[1], scans[1]))
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=words):
        read(DOWNLOADED["mnist"], str(folder))


def test_a_torn_image_or_table_is_named(tmp_path: Path, scans: Splits) -> None:
    folder = write_parquet(tmp_path / "data", scans)
    torn = [png(scans[0].images[0]), {"bytes": png(scans[0].images[1])["bytes"][:60]}]
    train = folder / "train-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": torn, "label": [0, 1]}), train)
    with pytest.raises(ValueError, match=r"train-.*row 2: the image cannot be decoded"):
        read(DOWNLOADED["mnist"], str(folder))
    train.write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        read(DOWNLOADED["mnist"], str(folder))


def test_the_first_examples_alone(mnist: Callable[..., Experiment], scans: Splits) -> None:
    prepared = tasks.prepare(mnist(**{"task.train_examples": 50, "task.eval_examples": 30}))
    assert np.array_equal(prepared.arrays["train_x"], scans[0].images[:50])
    assert np.array_equal(prepared.labels, scans[0].labels[:50])
    assert len(prepared.arrays["eval_x"]) == len(prepared.arrays["eval_y"]) == 30


def test_unknown_models_are_named(mnist: Callable[..., Experiment]) -> None:
    for model in ("cnn-3", "mlp-0", "resnet"):
        with pytest.raises(ValueError, match=f"{model}: mnist takes cnn or mlp-WIDTH"):
            tasks.prepare(mnist(**{"task.model": model}))


@pytest.mark.parametrize("model", ["cnn", "mlp-16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_two_builds_agree(mnist: Callable[..., Experiment], model: str, dtype: str) -> None:
    e = mnist(**{"task.model": model, "task.dtype": dtype})
    prepared = tasks.prepare(e)
    x = torch.tensor(prepared.x0).to(getattr(torch, dtype))
    losses = []
    for task in (tasks.build(e, prepared, CPU), tasks.build(e, prepared, CPU)):
        losses.append(task.losses(x, [task.batch(np.arange(8)), task.batch(np.arange(8, 16))]))
    assert np.array_equal(*losses)
    assert losses[0] == pytest.approx(2.3, abs=0.2)


def test_a_run_learns_and_exports_what_it_learnt(
    mnist: Callable[..., Experiment], tmp_path: Path
) -> None:
    changes = {"federation.rounds": 25, "federation.alpha": 10.0, "method.lr": 5e-3,
               "method.num_perturbations": 5, "eval.every": 25}  # fmt: skip
    run(mnist(**changes), tmp_path / "r")
    before = replay(tmp_path / "r", round_=0)
    after = replay(tmp_path / "r", export=tmp_path / "model")
    assert after["matches"]
    assert after["eval_loss"] < before["eval_loss"] - 0.1
    about = json.loads((tmp_path / "model" / "config.json").read_text())
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert (about["task"], about["model"]) == ("mnist", "cnn")
    assert {name: list(t.shape) for name, t in tensors.items()} == about["shapes"]
