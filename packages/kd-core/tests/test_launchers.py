"""Who started this process, by what launchers say in variables."""

import os
import re

import pytest
from kd_core.errors import UserError
from kd_core.runtime import launchers

PREFIXES = ("SLURM_", "OMPI_", "PMI_", "MPI_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_RANK")
HUGE = "9" * 5000  # longer than Python reads
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NNODES": "2",
    "SLURM_NODELIST": "gpu[007-009,12],login",
}
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "one",
    "MASTER_PORT": "29500",
}
MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
MEETING = {"MASTER_ADDR": "two", "MASTER_PORT": "5000"}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"}
ANSWERS = tuple(TORCHRUN)


@pytest.fixture
def started(monkeypatch):
    """Return a function that says how this process was started, and what torch then reads."""
    for name in [name for name in os.environ if name.startswith(PREFIXES)]:
        monkeypatch.delenv(name)
    for name in ANSWERS:  # what is added is removed again
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def start(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return launchers.adopt(), {n: os.environ[n] for n in ANSWERS if n in os.environ}

    return start


def test_a_task_of_srun_is_one_of_several(started):
    size, found = started(**SRUN)
    port = found.pop("MASTER_PORT")
    assert size == 4
    assert found == {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu007"}
    assert 12_000 <= int(port) < 32_000
    assert launchers.adopt() == 4  # asked again, it says the same
    assert launchers.is_bound_to_its_gpu()


def test_every_job_and_step_has_a_port_of_its_own(started):
    ports = set()
    for job, step in (("4711", "0"), ("4711", "1"), ("4712", "0"), ("24710", "0")):
        os.environ.pop("RANK", None)
        os.environ.pop("MASTER_PORT", None)
        os.environ.pop("WORLD_SIZE", None)
        ports.add(started(**SRUN | {"SLURM_JOB_ID": job, "SLURM_STEP_ID": step})[1]["MASTER_PORT"])
    assert len(ports) == 4


def test_what_a_user_says_of_the_meeting_is_kept(started):
    assert started(**SRUN, **MEETING)[1].items() >= MEETING.items()


@pytest.mark.parametrize(
    ("more", "host"),
    [
        ({"SLURM_STEP_NODELIST": "gpu012"}, "gpu012"),  # a step on one node of the job's
        ({"SLURM_NODELIST": "", "SLURM_JOB_NODELIST": "a[1-2]"}, "a1"),
    ],
)
def test_the_step_s_nodes_count_first(started, more, host):
    assert started(**SRUN | more)[1]["MASTER_ADDR"] == host


def test_the_step_s_number_of_tasks_counts_where_srun_keeps_the_job_s(started):
    assert started(**SRUN | {"SLURM_NTASKS": "64", "SLURM_STEP_NUM_TASKS": "4"})[0] == 4


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": ""},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_NODELIST": "a[1-2]"},  # salloc
        {**SRUN, "SLURM_STEP_ID": "", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # sbatch
        {**SRUN, "SLURM_STEP_ID": "4294967291"},  # sbatch, where it has a step
        {**SRUN, "SLURM_PTY_PORT": "40000"},  # srun --pty bash
        {**SRUN, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {name: "0" if value == "1" else "1" for name, value in MPI.items()},
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
    ],
)
def test_one_process_alone_stays_alone(started, variables):
    assert started(**variables)[0] == 1
    assert "RANK" not in os.environ


@pytest.mark.parametrize(("step", "idle"), [("", 3), ("0", 0)])
def test_tasks_that_a_job_s_script_leaves_idle_are_counted(started, step, idle):
    first = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    started(**SRUN | first | {"SLURM_STEP_ID": step})
    assert launchers.idle_tasks() == idle


def test_srun_wins_where_it_speaks_to_mpi_too(started):
    assert started(**SRUN, PMI_RANK="3", PMI_SIZE="4") == started(**SRUN)


def test_torchrun_wins_inside_a_task_of_srun(started):
    assert started(**SRUN, **TORCHRUN) == (2, TORCHRUN)


def test_torchrun_with_one_process_is_one_even_in_a_task_of_srun(started):
    assert started(**SRUN, **TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"})[0] == 1


@pytest.mark.parametrize("names", [MPI, HYDRA])
def test_mpi_needs_a_place_to_meet(started, names):
    assert started(**names, **MEETING)[1] == {
        **MEETING,
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": names.get("MPI_LOCALRANKID", "1"),
    }


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({**SRUN, "SLURM_PROCID": "4"}, "SLURM_PROCID is 4, SLURM_NTASKS 4"),
        ({**SRUN, "SLURM_LOCALID": "3", "SLURM_PROCID": "2"}, "SLURM_LOCALID 3: no process"),
        ({**SRUN, "SLURM_NNODES": "1"}, "SLURM_NNODES is 1, and on one node both are the same"),
        (
            {**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
            "the first task is on node 1 of the list; set MASTER_ADDR",
        ),
        ({**SRUN, "SLURM_PROCID": "x"}, "SLURM_PROCID is 'x'; wanted a whole number"),
        ({**SRUN, "SLURM_NTASKS": "-4"}, "SLURM_NTASKS is '-4'; wanted a whole number"),
        ({**SRUN, "SLURM_NTASKS": HUGE}, "SLURM_NTASKS is '9.*; wanted a whole number"),
        ({**SRUN, "SLURM_NTASKS": ""}, "SLURM_PROCID is set and SLURM_NTASKS is not"),
        ({**SRUN, "SLURM_LOCALID": ""}, "SLURM_PROCID is set and SLURM_LOCALID is not"),
        ({**SRUN, "SLURM_STEP_ID": ""}, "SLURM_PROCID is 3, but SLURM_STEP_ID is not set"),
        ({**SRUN, "SLURM_NODELIST": ""}, "SLURM_NODELIST is not set; set it, or MASTER_ADDR"),
        ({**SRUN, "SLURM_JOB_ID": ""}, "SLURM_JOB_ID is not set; set it, or MASTER_PORT"),
        ({**SRUN, "SLURM_NODELIST": "gpu[9-7]"}, r"list of nodes is 'gpu\[9-7\]'"),
        ({**SRUN, "WORLD_SIZE": "8"}, "WORLD_SIZE is 8, but the launcher says 4"),
        ({**SRUN, **TORCHRUN, "WORLD_SIZE": "4"}, "RANK is 1 and SLURM_PROCID is 3, of 4"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set and RANK is not; torchrun sets both"),
        ({"RANK": "0"}, "RANK is set and WORLD_SIZE is not"),
        ({**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({**TORCHRUN, "RANK": "2"}, "RANK is 2, WORLD_SIZE 2"),
        ({**TORCHRUN, "MASTER_ADDR": ""}, "MASTER_ADDR is not set; start with torchrun or srun"),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, "MASTER_PORT is 70000; wanted a port"),
        (MPI, "mpirun started 2 processes, but MASTER_ADDR is not set"),
        ({"PMI_RANK": "0", "MPI_LOCALRANKID": "0"}, "is set and PMI_SIZE is not; mpiexec sets"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "is set and MPI_LOCALRANKID is not"),
        ({"PMI_RANK": "1"}, "PMI_RANK is set and PMI_SIZE is not"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE is set and PMI_RANK is not"),
        ({"PMI_RANK": "1", "PMI_SIZE": "1"}, "is set and MPI_LOCALRANKID is not"),
    ],
)
def test_what_is_partial_or_contradicts_itself_is_refused(started, variables, message):
    with pytest.raises(UserError, match=message) as caught:
        started(**variables)
    assert "\n" not in str(caught.value)
    assert not re.search(r"  ", str(caught.value))


def test_a_number_that_is_none_leaves_no_tasks_idle(started):
    started(SLURM_JOB_ID="1", SLURM_NTASKS=HUGE)
    assert launchers.idle_tasks() == 0


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node7.cluster.org,node8.cluster.org", "node7.cluster.org"),
        ("127.0.0.1", "127.0.0.1"),
        ("n[3]", "n3"),
        ("n[003-010]", "n003"),
        ("n[5,1-3]", "n5"),
        ("rack[1-2]-gpu[04-08],login", "rack1-gpu04"),
        ("a[1-2]b,c[1-2]", "a1b"),
        ("a,b[1-2]", "a"),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    assert launchers.first_host(nodes) == first


@pytest.mark.parametrize(
    "nodes",
    [
        "",
        " ",
        "a[",
        "a]",
        "a[]",
        "a[1-]",
        "a[x]",
        "a,",
        ",a",
        "a b",
        "a[3-2]",
        "a[[1]]",
        "é",
        f"a[{HUGE}-2]",
    ],
)
def test_what_is_no_list_of_hosts_is_refused(nodes):
    with pytest.raises(UserError, match="wanted hosts such as"):
        launchers.first_host(nodes)
