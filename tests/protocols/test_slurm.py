"""The guarantees of docs/cluster.md, tested on a real Slurm with the configuration given there."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import time

import pytest

from flexalign_plugin.execution.queue_job import read_answer
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom

from .. import scipion_project
from . import slurm_cluster

pytestmark = pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "Slurm is here")

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "cluster.md")
QUEUE = {"JOB_MEMORY": "0", "JOB_HOURS": "1"}
MANY = 16  # as many movies keep a job busy for long enough to do something to it
RUN_S = 300.0


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        folder = str(tmp_path_factory.mktemp("slurm"))
        try:
            it = stack.enter_context(slurm_cluster.cluster(folder, nodes=2, cpus=2, gpus=2))
        except (RuntimeError, TimeoutError) as error:
            pytest.skip(f"Slurm is installed but does not start here: {error}")
        yield it


@pytest.fixture(autouse=True)
def _empty_queue(slurm):
    """Use the documented hosts.conf. Afterwards restore the old one and remove all jobs."""
    hosts = os.environ["SCIPION_HOSTS"]
    with open(DOCUMENT, encoding="utf-8") as file:
        documented = re.search(r"```ini\n(.*?)```", file.read(), re.DOTALL).group(1)
    with open(hosts) as file:
        before = file.read()
    with open(hosts, "w") as file:
        file.write(documented)
    yield
    with open(hosts, "w") as file:
        file.write(before)
    slurm.call("scancel", *slurm.jobs(), check=False)
    slurm.wait_until(lambda: not slurm.jobs())


@pytest.fixture(scope="module")
def one_movie(tmp_path_factory):
    phantom = particle_phantom((6, 256, 256), pixel_size_A=4.0, dose=4, contrast=0.4, band_limit_A=20, seed=5)
    path = str(tmp_path_factory.mktemp("movie") / "movie.mrcs")
    write_mrc_movie(path, phantom.frames(), 4.0)
    return path


@pytest.fixture
def new_run(project, one_movie, tmp_path):
    """Launches a run on copies of the movie. By default each step is submitted to the queue."""

    def launch(n_movies, steps="Y", gpus="0", **params):
        folder = tmp_path / "movies"
        folder.mkdir()
        for i in range(n_movies):
            os.link(one_movie, folder / f"m_{i:02d}.mrcs")
        imported = scipion_project.import_movies(project, str(folder), "*.mrcs", 4.0)
        run = scipion_project.new_alignment(project, imported, binThreads=1, doComputePSD=False, **params)
        run._useQueue.set(True)
        run.setQueueParams(("main", {**QUEUE, "QUEUE_FOR_JOBS": steps, "GPU_COUNT": gpus}))
        project.launchProtocol(run)
        return run

    return launch


def wait_for(condition, run=None):
    deadline = time.monotonic() + RUN_S
    while not condition():
        assert time.monotonic() < deadline, "it takes too long: " + (log_of(run) if run is not None else "")
        time.sleep(0.2)


def text_of(run):
    path = run.getStdoutLog()
    return open(path).read() if os.path.exists(path) else ""


def log_of(run):
    """The last lines of the run's output and of its errors."""
    texts = [text_of(run)]
    if os.path.exists(run.getStderrLog()):
        with open(run.getStderrLog()) as file:
            texts.append(file.read())
    return "\n".join(text[-3000:] for text in texts)


def ended(project, run):
    project._updateProtocol(run, checkPid=True)
    return not run.isActive()


def sizes(project, run):
    """Numbers of items in the sets of micrographs and of movies."""
    stored = scipion_project.as_stored(project, run)
    names = ("outputMicrographs", "outputMovies")
    return {getattr(stored, name).getSize() if stored.hasAttribute(name) else 0 for name in names}


def finished(project, run, n_movies):
    # Until the process of a continued run has begun, its database has the end of the one before.
    wait_for(lambda: ended(project, run) and sizes(project, run) == {n_movies}, run)
    assert run.isFinished(), log_of(run)
    for path in glob.glob(run._getExtraPath("DONE", "movie_*.json")):
        with open(path) as file:
            record = json.load(file)
        root = os.path.splitext(os.path.basename(record["movie"]))[0]
        assert os.path.basename(record["files"]["micrograph"]) == f"{root}_aligned_mic.mrc"
    return re.findall(r"Queue job (\d+) \(.*?\) runs on (\w+)(?:, GPU (\d+))?\.", text_of(run))


def answered(run):
    """Number of movies that running jobs have finished. Scipion's steps read these results later."""
    requests = glob.glob(run._getTmpPath("queue", "*", "*.json"))
    return sum(len(read_answer(request).results) for request in requests)


def test_jobs_spread_over_nodes_and_the_scheduler_gives_the_gpus(slurm, project, new_run):
    run = new_run(16, numberOfThreads=5, moviesPerJob=4, gpus="1")
    jobs = finished(project, run, 16)
    assert len(jobs) == 4
    # Two jobs on each node at the same time: each has a GPU of its own.
    assert {job[1:] for job in jobs} == {(node, gpu) for node in ("n1", "n2") for gpu in "01"}
    # What went well leaves neither scripts nor logs.
    assert not [name for name in os.listdir(run._getLogsPath()) if name.endswith((".job", ".out", ".err"))]


def test_a_killed_job_costs_a_retry(slurm, project, new_run):
    run = new_run(MANY, numberOfThreads=9, moviesPerJob=MANY)
    wait_for(lambda: answered(run) >= 3)
    assert slurm_cluster.kill_tree("flexalign_plugin batch")
    finished(project, run, MANY)
    assert "was killed on n" in text_of(run)


def test_a_dead_node_costs_a_retry(slurm, project, new_run):
    run = new_run(MANY, numberOfThreads=9, moviesPerJob=MANY)
    wait_for(lambda: answered(run) >= 3)
    node = re.search(r"runs on (n\d)", text_of(run)).group(1)
    slurm.kill_node(node)
    slurm.call("scontrol", "update", f"nodename={node}", "state=down", "reason=died")  # Slurm sees it after minutes
    try:
        nodes = {node for _, node, _ in finished(project, run, MANY)}
    finally:
        slurm.start_node(node)
        slurm.wait_until(slurm.all_idle)
    assert nodes == {"n1", "n2"} and f"it was killed on {node}" in text_of(run)
    assert not os.path.exists(run._getExtraPath("failed.tsv"))


def test_stopped_means_that_all_jobs_are_cancelled_and_none_follows(slurm, project, new_run):
    run = new_run(MANY, numberOfThreads=3, moviesPerJob=MANY // 2)
    wait_for(lambda: answered(run) >= 3 and len(slurm.jobs()) == 2)
    project._updateProtocol(run)
    project.stopProtocol(run)
    slurm.wait_until(lambda: not slurm.jobs())
    time.sleep(5)
    assert not slurm.jobs() and run.isAborted()
    assert len(os.listdir(run._getExtraPath("DONE"))) < MANY
    project.launchProtocol(run)
    finished(project, run, MANY)


def test_a_cancelled_job_is_not_sent_again(slurm, project, new_run):
    run = new_run(MANY, numberOfThreads=2, moviesPerJob=MANY - 2)
    wait_for(lambda: answered(run) >= 1)
    slurm.call("scancel", *slurm.jobs())
    wait_for(lambda: ended(project, run), run)
    assert run.isFinished()
    with open(run._getExtraPath("failed.tsv")) as file:
        n_failed = file.read().count("its job was ended by the queue (cancelled")
    stored = scipion_project.as_stored(project, run)
    assert stored.outputMoviesFailed.getSize() == n_failed >= 1
    assert stored.outputMovies.getSize() == MANY - n_failed
    project.launchProtocol(run)
    finished(project, run, MANY)


def test_when_the_run_itself_is_killed_continue_completes_it(slurm, project, new_run):
    run = new_run(MANY, numberOfThreads=3, moviesPerJob=5)
    wait_for(lambda: answered(run) >= 3)
    assert slurm_cluster.kill_tree("pw_protocol_run.py")
    wait_for(lambda: ended(project, run))
    project.launchProtocol(run)
    finished(project, run, MANY)
    # Jobs of the killed run found their requests gone.
    slurm.wait_until(lambda: not slurm.jobs())


def test_the_queue_may_be_away_for_a_while(slurm, project, new_run):
    run = new_run(MANY, numberOfThreads=9, moviesPerJob=MANY)
    wait_for(lambda: answered(run) >= 1)
    slurm.stop_controller()
    time.sleep(8)  # Scipion checks the queue at least once
    slurm.start_controller()
    finished(project, run, MANY)
    assert "tried again" not in text_of(run)


def test_the_whole_run_as_one_job(slurm, project, new_run):
    run = new_run(3, steps="N")
    wait_for(lambda: slurm.jobs())
    finished(project, run, 3)
    slurm.wait_until(lambda: not slurm.jobs())
    assert "runs on" not in text_of(run)
