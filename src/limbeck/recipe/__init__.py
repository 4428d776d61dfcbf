"""The typed description of a run, its overrides, and the run folder."""

from limbeck.recipe.spec import (
    ArmSpec,
    CompareSpec,
    DataSpec,
    InputSpec,
    Optimizer,
    Recipe,
    Schedule,
    TeacherSpec,
    Training,
)

__all__ = [
    "ArmSpec",
    "CompareSpec",
    "DataSpec",
    "InputSpec",
    "Optimizer",
    "Recipe",
    "Schedule",
    "TeacherSpec",
    "Training",
]
