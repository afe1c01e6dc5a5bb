"""Files of proposals give what Detectron2 reads from them, or are refused in one line."""

import pickle

import numpy as np
import pytest
import torch
from kd_core.errors import UserError
from kd_det import trainer
from kd_det.config import read_config
from kd_det.data.proposals import build, check_files, load_proposals

BOXES = [np.array([[0, 0, 2, 2], [1, 1, 3, 3]], np.float32), np.zeros((0, 4), np.float32)]
SCORES = [np.array([0.1, 0.9], np.float32), np.zeros(0, np.float32)]
GOOD = {"ids": ["1", 2], "boxes": BOXES, "objectness_logits": SCORES, "bbox_mode": 0}


def load(tmp_path, contents, protocol=4):
    file = tmp_path / "proposals.pkl"
    file.write_bytes(pickle.dumps(contents, protocol))
    return load_proposals([{"image_id": 1}, {"image_id": 2}], str(file))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("names", [{}, {"ids": "indexes", "objectness_logits": "scores"}])
def test_proposals_are_read_and_sorted_by_their_scores(tmp_path, protocol, names):
    contents = {names.get(name, name): value for name, value in GOOD.items()}
    first, second = load(tmp_path, contents, protocol)
    assert first["proposal_boxes"].tolist() == [[1, 1, 3, 3], [0, 0, 2, 2]]
    assert first["proposal_objectness_logits"].tolist() == [np.float32(0.9), np.float32(0.1)]
    assert len(second["proposal_boxes"]) == 0


def test_detectron2_itself_reads_them_so_once_our_trainer_is_imported():
    assert trainer.DistillationTrainer
    assert build.load_proposals_into_dataset is load_proposals
    assert build.pickle is pickle  # its own again, between files


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], "wanted a dict with lists ids, boxes, objectness_logits"),
        ({}, "wanted a dict"),
        ({**GOOD, "ids": 3}, "wanted a dict"),
        ({**GOOD, "ids": [1]}, "1 ids, 2 boxes, 2 scores"),
        ({**GOOD, "ids": [1, 3]}, "has no proposals of image 2"),
        ({**GOOD, "bbox_mode": 17}, "bbox_mode 17"),
        ({**GOOD, "bbox_mode": "x"}, "bbox_mode 'x'"),
        ({**GOOD, "boxes": [[], []]}, "image '1': wanted arrays"),
        ({**GOOD, "boxes": [np.zeros((2, 5)), BOXES[1]]}, "image '1': wanted arrays"),
        ({**GOOD, "boxes": [np.array(["a", "b"]), BOXES[1]]}, "image '1': wanted arrays"),
        ({**GOOD, "objectness_logits": [np.zeros(3), SCORES[1]]}, "image '1': wanted arrays"),
    ],
)
def test_what_is_not_proposals_is_named(tmp_path, contents, message):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, contents)
    assert "proposals.pkl: " in str(caught.value)


WITHOUT_RPN = ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"]
FILES = ["MODEL.LOAD_PROPOSALS", True, "DATASETS.PROPOSAL_FILES_TRAIN", ("train.pkl",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (WITHOUT_RPN, "but no proposals are read; set MODEL.LOAD_PROPOSALS True"),
        (["MODEL.LOAD_PROPOSALS", True], "PROPOSAL_FILES_TRAIN has 0 files for 1 data sets"),
        (FILES, "PROPOSAL_FILES_TEST has 0 files for 1 data sets"),
    ],
)
def test_a_detector_without_files_of_proposals_is_refused(write, options, message):
    cfg = read_config(write("faster_rcnn"), options)
    with pytest.raises(UserError, match=message):
        check_files(cfg, training=True)


def test_an_evaluation_needs_no_proposals_of_training(write):
    options = ["MODEL.LOAD_PROPOSALS", True, "DATASETS.PROPOSAL_FILES_TEST", ("val.pkl",)]
    check_files(read_config(write("faster_rcnn"), options), training=False)


def test_a_detector_on_proposals_learns_from_another(build, inputs, storage):
    from detectron2.structures import Instances

    dkd = {
        "CRITERION": "kd_core.criteria.dkd.DKD",
        "STUDENT": "@roi_logits",
        "TEACHER": "@roi_logits",
    }
    for one in inputs:
        boxes = one["instances"].gt_boxes
        regions = Instances(one["instances"].image_size, proposal_boxes=boxes)
        one["proposals"] = regions
        regions.objectness_logits = torch.zeros(len(boxes))
    distiller = build("faster_rcnn", {"dkd": dkd}, [*WITHOUT_RPN, "MODEL.LOAD_PROPOSALS", True])
    assert set(distiller(inputs)) == {"loss_cls", "loss_box_reg", "loss_dkd"}
