"""Many models made: one after the other, several at once by workers, or in one step on a device."""

from __future__ import annotations

from collections.abc import Sequence

from guda_cli.console import Meter
from guda_cli.store import ActionRecord
from guda_cli.workflow.models.jobs import LazyJobs, Task
from guda_cli.workflow.models.pool import Pool, Wanted
from guda_cli.workflow.project import sharing
from guda_cli.workflow.project.project import Job


def run_all(
    jobs: LazyJobs, tasks: Sequence[Task], full: ActionRecord | None, device: str, *, verb: str
) -> list[ActionRecord]:
    """The records of `tasks`, in order, each run once or found in the store; a bar, `verb`, counts them.

    Several are made at once, in processes of their own, where that keeps the cores busier (`sharing`); what
    they make is the same.
    """
    project, wanted = jobs.project, [jobs.job(task, full) for task in tasks]
    records: dict[str, ActionRecord] = {}

    def make_here(job: Job, bar: Meter) -> None:
        record = records[job.action.key] = project.ensure(job)
        if record.key in project.ran:
            bar.advance()
        else:
            bar.found()

    with project.console.progress(verb, len(tasks), unit="model") as bar:
        missing = [
            Wanted(job.action, task.to_dict(project.recipe))
            for job, task in zip(wanted, tasks, strict=True)
            if project.store.lookup(job.action.key) is None
        ]
        if len(missing) > 1 and sharing.unknown(project):  # the first tells how long the others take
            first = missing.pop(0)
            make_here(next(job for job in wanted if job.action is first.action), bar)
        made = _make_at_once(jobs, missing, full, device, bar)
        if not made and len(missing) > 1 and sharing.stackable(project, device):
            from guda_cli.workflow.models.bundles import make_in_bundles

            made = make_in_bundles(jobs, list(zip(wanted, tasks, strict=True)), full, bar)
        for job in wanted:
            if job.action.key not in records and job.action.key not in made:
                make_here(job, bar)
    return [records.get(job.action.key) or project.ensure(job) for job in wanted]


def _make_at_once(
    jobs: LazyJobs, missing: Sequence[Wanted], full: ActionRecord | None, device: str, bar: Meter
) -> set[str]:
    """The keys of those `missing` models that workers made: none where one process is as fast."""
    count = sharing.workers(jobs.project, [each.action for each in missing], full)
    on_cpu = sharing.on_cpu(device) if count > 1 else False
    if on_cpu is None:
        on_cpu = jobs.compute.device.type == "cpu"
    if not on_cpu:  # a device is as busy as one process makes it
        return set()
    jobs.project.console.detail(f"{count} models are made at once, each by a process of its own")
    return Pool(jobs.project, full, device, bar).make(missing, count)
