# Every helper function of the workflow; the other rule files hold rules alone. What each job is made from stands in
# learning_geometry.planning.jobs.
import gc
import os
import sys
from functools import cache

# a plan holds on to nearly all that it makes: a sixth of its time went to looking for what it does not
gc.freeze()
gc.set_threshold(50_000, 50, 50)

SOURCE = os.path.join(workflow.basedir, "src")
sys.path.insert(0, SOURCE)
# scripts run in processes of their own: they find the package without being installed, and keep freed
# memory, in huge pages where the system lends them on request (with glibc the first saves a tenth of a
# training step, the second some hundredths to a tenth)
environment = os.environ
environment["PYTHONPATH"] = os.pathsep.join([SOURCE, environment.get("PYTHONPATH", "")])
environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

from learning_geometry.claims.studies import STUDIES
from learning_geometry.config import AFTER_CONFIGFILE, ConfigError, load
from learning_geometry.forkserver import Server
from learning_geometry.ownership import NotOursError
from learning_geometry.paths import artifact
from learning_geometry.planning import jobs
from learning_geometry.planning.artifacts import known_failures
from learning_geometry.planning.bundles import bundles
from learning_geometry.planning.order import priorities
from learning_geometry.planning.plan import Plan
from learning_geometry.planning.remaining import Remaining
from learning_geometry.planning.rerun import Reruns
from learning_geometry.planning.resources import megabytes, minutes
from learning_geometry.planning.snakemake_work import rest, signed, spare
from learning_geometry.planning.spent import record
from learning_geometry.slurm import (
    SlurmError,
    keep_configuration,
    read_site,
    status,
)

# redraw.smk says False: the tables of an archive are drawn, and what they were measured on may lie elsewhere
READS_FILES = globals().get("READS_FILES", True)

try:
    # read again: Snakemake merges config files without what they extend
    read = load(
        workflow.configfiles, workflow.config_settings.config, files=READS_FILES
    )
except ConfigError as error:
    # with one file alone no target can have been taken for a config
    several = len(workflow.configfiles) > 1
    hint = f"\nConfig files: {', '.join(map(str, workflow.configfiles))}.{AFTER_CONFIGFILE}"
    raise WorkflowError(f"The config is not valid.\n{error}{hint * several}") from None

if workflow.remote_exec:
    keep_configuration()
    # the plugin for job steps asks for all cores of the node, and of a bundle one job at a time was sent for each
    if workflow.local_exec and (allotted := os.environ.get("SLURM_CPUS_PER_TASK", "")):
        workflow.global_resources["_cores"] = int(allotted)
config.clear()
config.update(read)
RESULTS = config["results"]
MEASURE = ("measure", "measure_language_model")
try:
    PLAN = Plan(
        config,
        os.path.join(workflow.basedir, "workflow/scripts"),
        redraw=not READS_FILES,
    )
except ValueError as error:
    raise WorkflowError(f"The jobs cannot be planned.\n{error}") from None
# what is planned in the main process is not planned again in the jobs that it starts on a cluster
RERUNS = Reruns(PLAN, logger.info) if workflow.is_main_process else None

# for `--sdm conda` alone: with it Snakemake works out the parameters of every job as it plans, whether it will run or not
ENVIRONMENT = (
    "../../environment.yml"
    if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    else None
)
spare()
PRIORITIES = priorities(PLAN.jobs)
# one job imports the libraries itself as fast
ENOUGH_JOBS = 2
BESIDE = {}


wildcard_constraints:
    experiment="[a-z0-9_]+",
    gguf="[a-z0-9_-]+",
    # the metrics of training lie beside the measurements
    measurement=r"(?!(training|imported)_metrics\b)[a-z0-9_]+",
    seed="[0-9]+",
    text="[a-z0-9_]+",
    weights="trained|untrained",


def result(name, **wildcards):
    """The path of an artifact of this config."""
    return artifact(RESULTS, name, **wildcards)


def forced():
    """Whether jobs are forced on the command line, which may be any."""
    asked = workflow.dag_settings
    return bool(asked.forceall or asked.forcetargets or asked.forcerun)


def made(rule, *one):
    """What a job reads of what other jobs make, by role (learning_geometry.planning.jobs), for `unpack`.

    Times decide nothing, hence `ancient`; but of jobs downstream of one that runs Snakemake 9.27 looks at nothing else
    than their inputs, so those of a job that must run are not. What an up-to-date job was made from may be missing; it
    is then no input, or the job would run when it is made again. Of jobs that are not up to date `again` is a file that is
    newer than their outputs. Each role is a list, but those named in `one` are one path.
    """

    @signed
    def paths(wildcards):
        if RERUNS is None and workflow.remote_exec:
            # as in `begin`, which Snakemake does not call on a node; what schedules there is not made yet
            workflow.scheduling_settings.max_jobs_per_timespan = None
        job = PLAN.find(rule, wildcards)
        reason = "" if RERUNS is None else must_run(job)
        read = {}
        for role, listed in job.inputs.items():
            if not reason:
                there = RERUNS is None or forced()
                listed = [
                    ancient(path) for path in listed if there or os.path.exists(path)
                ]
            read[role] = listed[0] if role in one and listed else list(listed)
        try:
            read["again"] = [] if RERUNS is None else RERUNS.marker(job, reason)
        except NotOursError as error:
            raise WorkflowError(str(error)) from None
        return read

    return paths


def in_order(rule):
    """When a job begins among those that could."""
    return signed(lambda wildcards: PRIORITIES[PLAN.find(rule, wildcards)])


def bundle(rule):
    """With which other jobs a job is sent to a cluster; with none on this machine."""
    if workflow.resource_settings.nodes is None:
        return None

    @signed
    def name(wildcards):
        if workflow.local_exec:
            return None
        if workflow.remote_exec:  # on a node: all jobs that it was sent
            number = 0
        else:
            number = sent()[0].get(PLAN.find(rule, wildcards))
            if number is None:
                return None
        # jobs of a bundle need not depend on each other; on a node Snakemake is not told of the number either
        group = f"bundle_{number}"
        workflow.parent_groupids[group] = "bundle"
        workflow.group_settings.group_components = {"bundle": sys.maxsize}
        return group

    return name


def sent():
    """Of what must run, in which bundle each short job is, and how many minutes each job asks for; computed once."""
    if "sent" not in BESIDE:
        running = [job for job in PLAN.jobs if must_run(job)]
        numbers = bundles(running)
        together = {}
        for job in running:
            together.setdefault(numbers.get(job, job), []).append(job)
        asked = {}
        for each in together.values():
            asked |= minutes(each)
        BESIDE["sent"] = numbers, asked
    return BESIDE["sent"]


def time_of(rule):
    """The minutes that a job asks a cluster for: more at each attempt."""

    if workflow.resource_settings.nodes is None:  # nobody asks
        return 1

    @signed
    def asked(wildcards, attempt):
        if workflow.local_exec:
            return 1
        job = PLAN.find(rule, wildcards)
        known = {} if RERUNS is None else sent()[1]
        return attempt**2 * (known[job] if job in known else minutes([job])[job])

    return asked


def memory_of(rule):
    """The memory that a job asks a cluster for (MB): more at each attempt."""
    return signed(
        lambda wildcards, attempt: attempt * megabytes(PLAN.find(rule, wildcards))
    )


@cache
def must_run(job):
    """Why a job must run, if its outputs are not up to date."""
    asked = workflow.dag_settings.targets
    targets = [os.path.relpath(target) for target in asked] + [
        path for path in job.outputs if job.rule in asked
    ]
    try:
        return PLAN.must_run(job, targets)
    except (ValueError, OSError) as error:
        raise WorkflowError(str(error)) from None


def setting(name):
    """One of the settings of a job."""
    return signed(lambda wildcards, output: PLAN.made_by(output[0]).settings[name])


@signed
def derivation(wildcards, output):
    """What a job checks itself against, and stores in its outputs."""
    serve_bundle()
    job = PLAN.made_by(output[0])
    recipe(job)
    return PLAN.derivation(job)


def recipe(job):
    """What a job's outputs are made from."""
    try:
        return PLAN.made_from(job)
    except (ValueError, OSError) as error:
        raise WorkflowError(str(error)) from None


def in_words(name):
    """A name of the config as a heading."""
    return name.replace("_", " ").capitalize()


def figure_category(figure):
    """Where the report lists a figure: under the study of the experiment that it shows first."""
    shown = config["figures"].get(figure, {"experiments": []})["experiments"]
    studied = config["experiments"] | config["language_models"]
    return in_words(studied[shown[0]]["study"]) if shown else "Figures"


def studies():
    """The names of all studies; each is a target."""
    return [study.name for study in STUDIES]


def final_outputs(study=None):
    """Everything of one study, or of all; what fails last if a measurement of it could not be made before."""
    outputs = jobs.final_outputs(config, PLAN.jobs, study)
    known = RERUNS is not None and failed().intersection(outputs)
    return outputs + [result("failed")] * bool(known)


@cache
def failed():
    """The paths of the tables of measurements that could not be made, as of now."""
    return {each.path for each in failures()}


def failures():
    """The measurements that could not be made."""
    return known_failures(
        (job.outputs[0] for job in PLAN.jobs if job.rule in MEASURE), PLAN.known
    )


def begin():
    """Let the scheduler rest between jobs, and start what they need beside them, if they run on this machine."""
    rest(workflow.scheduler)
    if workflow.executor_plugin.name == "slurm":
        follow_slurm()
    running = {
        job.jobid: PLAN.made_by(job.output[0]) if job.output else None
        for job in workflow.dag.needrun_jobs()
    }
    # by the code and files of now, whenever a job begins; as jobs are planned nothing may have asked for them
    for job in running.values():
        if job is not None:
            recipe(job)
    cores = workflow.resource_settings.cores or 1 if workflow.local_exec else None
    BESIDE["remaining"] = Remaining(running, cores, logger.info)
    logger.addHandler(BESIDE["remaining"])
    if workflow.local_exec and len(running) >= ENOUGH_JOBS:
        serve()


def follow_slurm():
    """Learn what became of jobs as this cluster lets one."""
    try:
        site = read_site()
        learned, settings = status(site), workflow.executor_settings
    except SlurmError as error:
        raise WorkflowError(f"The cluster cannot be used.\n{error}") from None
    settings.status_command = learned.command
    settings.init_seconds_before_status_checks = min(
        learned.seconds, settings.init_seconds_before_status_checks
    )
    # without accounting there are none; a guess of one ends in error messages, which the plugin's own
    # --slurm-no-account does not prevent (2.8.0)
    executor = getattr(workflow.scheduler, "_executor", None)
    if not site.accounting and executor is not None:
        executor._fallback_account_arg = ""


def serve():
    """Start the server that forks the jobs of this process."""
    # a path of temporary files may be too long for a socket
    try:
        BESIDE["server"] = Server()
    except OSError as error:
        logger.info(f"No server forks the jobs, each imports for itself: {error}")


def serve_bundle():
    """Start the server on a node of a cluster, for the jobs that were sent there together."""
    # Snakemake calls no `onstart` there
    several = len(workflow.dag_settings.target_jobs) >= ENOUGH_JOBS
    if workflow.remote_exec and workflow.local_exec and several and not BESIDE:
        BESIDE["bundle"] = True
        serve()


def end(success):
    """End what :func:`begin` started, record what the run took, and say what failed."""
    if "server" in BESIDE:
        BESIDE["server"].stop()
    if "remaining" in BESIDE:
        record(RESULTS, BESIDE["remaining"].jobs, BESIDE["remaining"].seconds)
    say_failures(success)


def say_failures(success):
    """Say, as the last thing of a run, what could not be measured; then it is no success."""
    found = failures()
    if not found:
        return
    from learning_geometry.failures import told

    text = told(found)
    if success:
        raise WorkflowError(text)
    logger.error(text)


def drawn_outputs():
    """Everything that is made from the summaries."""
    return jobs.drawn_outputs(PLAN.jobs)
