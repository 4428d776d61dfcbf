"""Scale-decoupled distillation (SDD): the logits of image regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import linear

from limbeck import functional
from limbeck.data.base import Record
from limbeck.functional import sdd_loss, sdd_pool
from limbeck.methods.base import Clock
from limbeck.methods.classifiers import ClassifierTerm
from limbeck.methods.features import TapSpec
from limbeck.methods.term import Weight


class SddSpec(TapSpec):
    """SDD as in shicaiwei123/SDD-CVPR2024@e412036.

    Attributes:
        loss: the logit loss on each region, with its published options.
        temperature: of that loss.
        scales: sides of the grids whose cells are the regions; the first should be 1.
        complementary: weight of regions where the teacher is right and on the whole image wrong,
            or the other way round.
    """

    name: Literal["sdd"] = "sdd"
    loss: Literal["dkd", "nkd"] = "dkd"
    temperature: Annotated[float, Field(gt=0)] = 4.0
    scales: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4)
    complementary: Weight = 2.0


class Sdd(ClassifierTerm):
    """A logit loss on every region of the last maps (Wei et al., CVPR 2024).

    A region's logits are the classifier's word on the average of its maps. It trains the student's
    classifier with the features that it reads, and reads the labelled samples.
    """

    Spec: ClassVar[type[TapSpec]] = SddSpec
    labeled = True
    spec: SddSpec

    def pair_losses(  # noqa: D102
        self, features: Sequence[tuple[Tensor, Tensor]], batch: Record, clock: Clock
    ) -> list[Tensor]:
        student, teacher = self.adapter(*features[0])
        loss = sdd_loss(
            self._regions(student, self._student_classifier[0]),
            self._regions(teacher, self.teacher_classifier),
            self.read(batch, "y"),
            loss=getattr(functional, f"{self.spec.loss}_loss"),
            complementary=self.spec.complementary,
            temperature=self.spec.temperature,
        )
        return [loss]

    def _regions(self, maps: Tensor, classifier: Any) -> Tensor:
        pooled = sdd_pool(maps, scales=self.spec.scales).transpose(1, 2)
        return linear(pooled, classifier.weight, classifier.bias).transpose(1, 2)
