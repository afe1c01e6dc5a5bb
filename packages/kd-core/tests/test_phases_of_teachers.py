"""Which phases are shared by all students of the same teachers: those that see nothing else."""

import pytest
from kd_core.experiment.teachers import is_of_teachers

BLIND = {"student": [], "teacher": ["fc"]}  # a term that looks at the teacher alone
SEEING = {"student": ["fc"], "teacher": ["fc"]}
SILENT = {"teacher": ["fc"]}  # does not say which taps of the student: the criterion's default
TRAINED = {"weights": "teacher.pth"}


def phase(*terms, teacher=TRAINED, **distiller):
    named = {f"term{number}": term for number, term in enumerate(terms)}
    return {"teacher": teacher, "distiller": {"terms": named, "train_student": False, **distiller}}


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
        pytest.param(phase(BLIND, teacher={"weights": "random"}), id="its teacher is random"),
        pytest.param(phase(SEEING, train_student=True), id="only its teacher would be shared"),
        pytest.param({"teacher": TRAINED}, id="it has no distiller"),
    ],
)
def test_a_phase_with_anything_of_a_student_or_a_seed_in_it_is_the_run_s_own(settings):
    assert not is_of_teachers(settings)


def test_one_random_teacher_of_several_is_enough():
    teachers = {"a": TRAINED, "b": {"weights": "random"}}
    settings = phase(BLIND) | {"teachers": teachers}
    del settings["teacher"]
    assert not is_of_teachers(settings)
