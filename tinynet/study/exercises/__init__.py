"""Exercises: write a backward pass and be told what is wrong with it. The blanks are in ``blanks/``."""

from tinynet.study.exercises.command import EXERCISES, add_command, check
from tinynet.study.exercises.diagnosis import Report, Verdict

__all__ = ["EXERCISES", "Report", "Verdict", "add_command", "check"]
