"""Teacher and student, and system identification: the agent, and the two networks that it trains."""

from metarl.agents.teacher_student.networks import InformedPolicyConfig, Student, Teacher
from metarl.agents.teacher_student.teacher_student import TeacherStudent, TeacherStudentConfig

__all__ = ["InformedPolicyConfig", "Student", "Teacher", "TeacherStudent", "TeacherStudentConfig"]
