"""What a teacher is: a live model with its own input adapter, or several."""

from limbeck.teachers.base import Teacher, mean_logits
from limbeck.teachers.live import LiveTeacher, class_order
from limbeck.teachers.remembered import Remembered
from limbeck.teachers.several import Teachers

__all__ = ["LiveTeacher", "Remembered", "Teacher", "Teachers", "class_order", "mean_logits"]
