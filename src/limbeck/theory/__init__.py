"""Teacher-student laboratory: settings small enough that theory says what to expect."""

from limbeck.theory.copy_average import (
    OneNeuron,
    best_groups,
    copy_average_loss,
    copy_average_point,
    copying_loss,
    copying_wins_from,
    one_neuron,
    orthonormality_defect,
    partitions,
)
from limbeck.theory.difficulty import (
    Difficulty,
    KernelStudent,
    data_inefficiency,
    difficulty,
    mean_log_norms,
    oracle_angle,
    risk_bound,
    weight_norms,
    window_inefficiency,
)
from limbeck.theory.gradient_flow import EndState, gradient_flow, phase_table
from limbeck.theory.halfspace import halfspace_bound, slam_perceptron
from limbeck.theory.population import interaction, interactions, population_loss
from limbeck.theory.tangent import Tangent, conjugate_gradient

__all__ = [
    "Difficulty",
    "EndState",
    "KernelStudent",
    "OneNeuron",
    "Tangent",
    "best_groups",
    "conjugate_gradient",
    "copy_average_loss",
    "copy_average_point",
    "copying_loss",
    "copying_wins_from",
    "data_inefficiency",
    "difficulty",
    "gradient_flow",
    "halfspace_bound",
    "interaction",
    "interactions",
    "mean_log_norms",
    "one_neuron",
    "oracle_angle",
    "orthonormality_defect",
    "partitions",
    "phase_table",
    "population_loss",
    "risk_bound",
    "slam_perceptron",
    "weight_norms",
    "window_inefficiency",
]
