"""What a teacher is: a live model with its own input adapter, stored outputs, or several."""

from limbeck.teachers.base import Teacher, mean_logits
from limbeck.teachers.live import LiveTeacher, class_order
from limbeck.teachers.remembered import Memory, Remembered
from limbeck.teachers.several import Teachers
from limbeck.teachers.stored import Stored

__all__ = [
    "LiveTeacher",
    "Memory",
    "Remembered",
    "Stored",
    "Teacher",
    "Teachers",
    "class_order",
    "mean_logits",
]
