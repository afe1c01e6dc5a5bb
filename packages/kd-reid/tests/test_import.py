"""torchreid is found wherever it comes from, and its absence is explained."""

import subprocess
import sys

import pytest
import torch


@pytest.mark.parametrize("missing", ["torchreid", "scipy"])
def test_a_missing_package_is_named_with_what_to_install(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; from kd_reid import torchreid"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: kd_reid needs torchreid" in done.stderr
    assert missing in done.stderr
    assert "pip install 'torchreid>=0.2.5'" in done.stderr


def test_a_network_gives_embeddings_that_torchreid_can_rank():
    import torchreid
    from torchreid import metrics

    torch.manual_seed(0)
    network = torchreid.models.build_model("osnet_x0_25", 5, pretrained=False, use_gpu=False)
    with torch.no_grad():
        embeddings = network.eval()(torch.rand(4, 3, 64, 32))
    assert embeddings.shape == (4, 512)
    distance = metrics.compute_distance_matrix(embeddings, embeddings).numpy()
    cmc, mean_ap = metrics.evaluate_rank(
        distance,
        *(torch.arange(4).numpy() for _ in range(2)),
        *(torch.full((4,), camera).numpy() for camera in (0, 1)),
        max_rank=4,
        use_cython=False,
    )
    assert cmc.tolist() == [1.0] * 4
    assert mean_ap == 1.0
