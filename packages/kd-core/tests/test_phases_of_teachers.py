"""Which phases are shared by all students of the same teachers: those that see nothing else."""

from dataclasses import replace

import pytest
from kd_core.config.node import Node
from kd_core.distill.term_spec import TermSpec
from kd_core.experiment.spec import Experiment, TeacherSpec
from kd_core.experiment.teachers import is_of_teachers

BLIND = {"student": [], "teacher": ["fc"]}  # a term that looks at the teacher alone
SEEING = {"student": ["fc"], "teacher": ["fc"]}
SILENT = {"teacher": ["fc"]}  # does not say which taps of the student: the criterion's default


def phase(*terms, weights=("teacher.pth",), **distiller):
    return Experiment(
        data=Node(dict),
        student=Node(dict),
        distiller=Node(dict, {"train_student": False, **distiller}),
        terms={str(number): TermSpec(Node(dict, term)) for number, term in enumerate(terms)},
        teachers={
            str(number): TeacherSpec("teacher", Node(dict, {"weights": file}), {})
            for number, file in enumerate(weights)
        },
    )


def test_a_phase_that_trains_criteria_on_teachers_alone_is_of_the_teachers():
    assert is_of_teachers(phase(BLIND))
    assert is_of_teachers(phase(BLIND, BLIND))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(phase(BLIND, train_student=True), id="the student is trained"),
        pytest.param(phase(SEEING), id="its term looks at the student"),
        pytest.param(phase(SILENT), id="its term may look at the student"),
        pytest.param(phase(BLIND, SEEING), id="one of its terms looks at the student"),
        pytest.param(phase(BLIND, weights=["random"]), id="its teacher is random"),
        pytest.param(phase(SEEING, train_student=True), id="only its teacher would be shared"),
        pytest.param(replace(phase(BLIND), distiller=Node(dict)), id="it has no distiller"),
    ],
)
def test_a_phase_with_anything_of_a_student_or_a_seed_in_it_is_the_run_s_own(settings):
    assert not is_of_teachers(settings)


def test_one_random_teacher_of_several_is_enough():
    assert is_of_teachers(phase(BLIND, weights=["a.pth", "b.pth"]))
    assert not is_of_teachers(phase(BLIND, weights=["a.pth", "random"]))
