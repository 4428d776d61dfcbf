"""Distil a network of your own on arrays of your own, compare, export: `python own_model.py`.

The network and the arrays here stand for yours. Everything goes to the folder `runs/`.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits
from torch import Tensor, nn

import limbeck


class Net(nn.Module):
    """Any module that takes a batch of samples and returns logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.convolutions(images).flatten(1))


def main(epochs: int) -> None:
    digits = load_digits()
    images = (digits.images[:, None] * (255 / 16)).astype(np.uint8)
    data = limbeck.load_data((images, digits.target))
    training = {"epochs": epochs}

    teacher = limbeck.train(Net(32), data, training=training).student
    result = limbeck.distill(Net(4), teacher, data, method="kd", training=training)
    print(f"student {result.metrics['test.accuracy']:.3f}, in {result.run}")

    comparison = limbeck.compare(
        lambda seed: Net(4),  # a fresh student for every seed
        teacher,
        data,
        arms=["kd"],
        temperatures=[2, 4],
        weights=[0.9],
        training=training,
    )
    print(comparison.verdict)
    card = limbeck.export(
        result.run, f"{result.run}-shipped", formats=["pt2"], data=data, model=Net(4)
    )
    print(card["exports"])


if __name__ == "__main__":
    main(epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 20)
