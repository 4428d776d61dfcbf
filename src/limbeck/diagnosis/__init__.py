"""Read-only probes: a student, a teacher and data to figures, before a long training."""

from limbeck.diagnosis.findings import Finding
from limbeck.diagnosis.verdict import Diagnosis, judge

__all__ = ["Diagnosis", "Finding", "judge"]
