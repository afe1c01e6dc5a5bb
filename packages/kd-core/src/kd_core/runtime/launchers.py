"""How this process was started: alone, or as one of several by torchrun, srun or mpirun.

torchrun says it in variables that torch reads. Those of SLURM and MPI are translated into them.
"""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from kd_core.errors import UserError

_INNER_STEP = 4294967280  # from here on: a job's script, its interactive shell and the like
_PORTS = range(12_000, 32_000)  # below those that the system hands out
_NEXT_STEP = 997  # ports between two steps of a job
_DIGITS = 18  # longer numbers are none, and Python does not read the longest
_RANGE = rf"\d{{1,{_DIGITS}}}(?:-\d{{1,{_DIGITS}}})?"
_HOST = rf"(?:[\w.-]|\[{_RANGE}(?:,{_RANGE})*\])+"


class _Names(NamedTuple):
    """The variables in which a launcher says who a process is."""

    launcher: str
    rank: str
    size: str
    local_rank: str


_TORCHRUN = _Names("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK")
_SRUN = _Names("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
_OPEN_MPI = _Names(
    "mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"
)
_HYDRA = _Names("mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID")


def adopt() -> int:
    """Return how many processes were started together; let torch know of them.

    torchrun's variables, or a user's of these names, win over all others. A job's script and an
    interactive shell are one process, however many tasks the job has.

    Raises:
        UserError: If variables are missing, or contradict one another.
    """
    given = _nonempty(os.environ)
    if "RANK" in given and "WORLD_SIZE" in given:
        found = _of_torchrun(given)
    elif _OPEN_MPI.rank in given:
        found = _of_mpi(given, _OPEN_MPI)
    elif _HYDRA.local_rank in given or _is_of_hydra(given):
        found = _of_mpi(given, _HYDRA)
    else:
        found = _of_slurm(given)
    for name in ("RANK", "WORLD_SIZE"):
        if name in given and found and given[name] != found[name]:
            raise UserError(
                f"{name} is {given[name]}, but the launcher says {found[name]}; unset {name}"
            )
    size = _checked({**given, **found})
    os.environ.update(found)
    return size


def _is_of_hydra(given: Mapping[str, str]) -> bool:
    """Return whether an `mpiexec` that does not give local ranks started this process.

    srun sets the same variables for MPI's own use (`--mpi=pmi2`), beside those of its own.
    """
    alone = given.get(_HYDRA.size) == "1" and given.get(_HYDRA.rank, "0") == "0"
    return "SLURM_STEP_ID" not in given and not alone and not given.keys().isdisjoint(_HYDRA[1:3])


def idle_tasks() -> int:
    """Return how many tasks of a SLURM job are idle, since this process runs alone."""
    given = _nonempty(os.environ)
    alone = "RANK" not in given and "SLURM_JOB_ID" in given and "SLURM_STEP_ID" not in given
    tasks = given.get(_SRUN.size, "1")
    return int(tasks) - 1 if alone and _is_number(tasks) else 0


def is_bound_to_its_gpu() -> bool:
    """Return whether SLURM started this process, which may show each its own GPU alone."""
    return "SLURM_STEP_ID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ


def first_host(nodes: str) -> str:
    """Return the first host of a list as SLURM writes it, such as `gpu[007-009,12],login`.

    Raises:
        UserError: If it is not such a list.
    """
    right = re.fullmatch(f"{_HOST}(?:,{_HOST})*", nodes, re.ASCII)
    ranges = re.findall(r"(\d+)-(\d+)(?=[,\]])", nodes) if right else []
    if not right or any(int(low) > int(high) for low, high in ranges):
        raise UserError(
            f"SLURM's list of nodes is {nodes!r:.200}; wanted hosts such as node[01-04],other; set "
            "MASTER_ADDR to the host of the first task"
        )
    first = re.match(_HOST, nodes, re.ASCII)
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", first[0] if first else "")


def _of_torchrun(given: Mapping[str, str]) -> dict[str, str]:
    """Return nothing to add; reject numbers that a job's script gave to all of its tasks."""
    one, other = given["RANK"], given.get(_SRUN.rank)
    alike = "SLURM_STEP_ID" in given and given["WORLD_SIZE"] == given.get(_SRUN.size)
    if alike and one != other and "TORCHELASTIC_RUN_ID" not in given:
        raise UserError(
            f"RANK is {one} and {_SRUN.rank} is {other}, of {given['WORLD_SIZE']} processes; unset "
            "RANK: every task of srun has a number of its own"
        )
    return {}


def _of_mpi(given: Mapping[str, str], names: _Names) -> dict[str, str]:
    """Return torchrun's variables for a process that MPI started; empty for one alone."""
    rank, size, local = _numbers(given, names)
    if size == 1:
        return {}
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in given:
            raise UserError(
                f"{names.launcher} started {size} processes, but {name} is not set; set "
                "MASTER_ADDR to the host of the first process and MASTER_PORT to a free port there"
            )
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(local)}


def _of_slurm(given: Mapping[str, str]) -> dict[str, str]:
    """Return torchrun's variables for a task that srun started; empty for one alone."""
    if not _is_task(given):
        return {}
    # srun --preserve-env keeps the job's SLURM_NTASKS; those of the step have names of their own.
    size_name = _first_of(given, "SLURM_STEP_NUM_TASKS", _SRUN.size)
    rank, size, local = _numbers(given, _SRUN._replace(size=size_name or _SRUN.size))
    if size == 1:
        return {}
    _check_nodes(given, rank, local)
    nodes = _first_of(given, "SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST")
    job = _first_of(given, "SLURM_JOB_ID", "SLURM_JOBID")
    found = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(local)}
    if "MASTER_ADDR" not in given:
        if nodes is None:
            raise _missing("SLURM_NODELIST", "MASTER_ADDR")
        found["MASTER_ADDR"] = first_host(given[nodes])
    if "MASTER_PORT" not in given:
        if job is None:
            raise _missing("SLURM_JOB_ID", "MASTER_PORT")
        number = _number(given, job) + _NEXT_STEP * _number(given, "SLURM_STEP_ID")
        found["MASTER_PORT"] = str(_PORTS[number % len(_PORTS)])
    return found


def _is_task(given: Mapping[str, str]) -> bool:
    """Return whether srun started this process, not a job's script or a shell in it."""
    step = "SLURM_STEP_ID" in given
    if not step and given.get(_SRUN.rank, "0") != "0":
        raise UserError(
            f"{_SRUN.rank} is {given[_SRUN.rank]}, but SLURM_STEP_ID is not set; srun sets both: "
            f"pass both on, or unset {_SRUN.rank}"
        )
    return step and "SLURM_PTY_PORT" not in given and _number(given, "SLURM_STEP_ID") < _INNER_STEP


def _check_nodes(given: Mapping[str, str], rank: int, local: int) -> None:
    """Reject tasks that are not where their numbers say."""
    nodes = _first_of(given, "SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    if nodes and _number(given, nodes) == 1 and local != rank:
        raise UserError(
            f"{_SRUN.local_rank} is {local} and {_SRUN.rank} is {rank}, but {nodes} is 1, and on "
            "one node both are the same; are these the variables of one srun?"
        )
    place = "SLURM_NODEID"
    if rank == 0 and place in given and _number(given, place) and "MASTER_ADDR" not in given:
        raise UserError(
            f"the first task is on node {given[place]} of the list; set MASTER_ADDR to its host"
        )


def _checked(given: Mapping[str, str]) -> int:
    """Return the number of processes that torchrun's variables say, once all of them are right."""
    if "WORLD_SIZE" not in given and "RANK" not in given:
        return 1
    if given.get("WORLD_SIZE") == "1" and "RANK" not in given:
        return 1
    local = "LOCAL_RANK" if "LOCAL_RANK" in given else "RANK"
    _, size, _ = _numbers(given, _TORCHRUN._replace(local_rank=local))
    if size > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in given:
                raise UserError(
                    f"WORLD_SIZE is {size}, but {name} is not set; start with torchrun or srun, or "
                    "unset WORLD_SIZE"
                )
        if not 0 < _number(given, "MASTER_PORT") < 2**16:
            raise UserError(
                f"MASTER_PORT is {given['MASTER_PORT']}; wanted a port, from 1 to {2**16 - 1}"
            )
    return size


def _numbers(given: Mapping[str, str], names: _Names) -> tuple[int, int, int]:
    """Return rank, number of processes and rank on the machine; reject what cannot be."""
    for name in names[1:]:
        if name not in given:
            known = next(other for other in names[1:] if other in given)
            raise UserError(
                f"{known} is set and {name} is not; {names.launcher} sets both: set {name}, or "
                f"unset {known}"
            )
    rank, size, local = (_number(given, name) for name in names[1:])
    if not local <= rank < size:
        raise UserError(
            f"{names.rank} is {rank}, {names.size} {size} and {names.local_rank} {local}: no "
            f"process has such numbers; are these the variables of one {names.launcher}?"
        )
    return rank, size, local


def _number(given: Mapping[str, str], name: str) -> int:
    text = given[name]
    if not _is_number(text):
        raise UserError(f"{name} is {text!r:.80}; wanted a whole number")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def _first_of(given: Mapping[str, str], *names: str) -> str | None:
    return next((name for name in names if name in given), None)


def _missing(name: str, instead: str) -> UserError:
    return UserError(f"srun started this process, but {name} is not set; set it, or {instead}")


def _nonempty(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in variables.items() if text}
