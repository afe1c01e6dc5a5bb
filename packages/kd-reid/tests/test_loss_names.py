"""Names of terms and of joint losses are not those of losses of the student."""

import pytest
from kd_core.errors import UserError
from kd_core.experiment.parsing import parse_experiment
from kd_reid.adapter import ADAPTER

NETWORK = {"type": "kd_reid.models.build_model", "name": "osnet_tiny"}
UNIC = {"type": "kd_core.criteria.unic.UNICVectors"}


def parsed(terms, **distiller):
    config = {
        "data": {"type": "kd_reid.data.synthetic"},
        "student": {"network": NETWORK, "metric_losses": "triplet"},
        "teacher": {"network": NETWORK, "weights": "random"},
        "distiller": {"terms": terms, **distiller},
    }
    return parse_experiment(ADAPTER, config, training=False)


def term(**more):
    return {"criterion": UNIC, "student": "@embedding", "teacher": "@embedding", **more}


@pytest.mark.parametrize(
    ("terms", "place"),
    [
        ({"id": term()}, "distiller.terms.id: 'id'"),
        ({"triplet": term()}, "distiller.terms.triplet: 'triplet'"),
        ({"a": term(joint="id"), "b": term(joint="id")}, "distiller.terms.a: 'id'"),
    ],
)
def test_the_name_of_a_loss_of_the_student_is_refused(terms, place):
    with pytest.raises(UserError, match=f"{place} has the name of a loss of the student; rename"):
        parsed(terms)


@pytest.mark.parametrize("weight", [0, {"id": 0}])
def test_the_name_of_a_loss_that_is_left_out_is_free(weight):
    assert "id" in parsed({"id": term()}, task_weight=weight).terms
