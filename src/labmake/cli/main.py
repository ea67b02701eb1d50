"""The command `labmake` (and `lm`): words to functions. Commands are imported when they are called.

`labmake` alone builds the current experiment; a first word that is no command is a target.

Exit codes: 0 all well, 1 a step failed, 2 the command line or a rule cannot be, 3 an edited file was kept,
4 data are not what hashes.txt records, 5 the store cannot be used, 130 interrupted.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from labmake.errors import INTERRUPTED, LabmakeError, Misuse, StoreError, format_error

HELP = """Make for the lab: ask for a file, get the file, and nothing is made twice.

\b
  labmake                       build the current experiment
  labmake plot1                 build one target: a path, a short path or a unique stem
  labmake build -n              say what would be made

Exit codes: 0 all well, 1 a step failed, 2 the command line or a rule cannot be, 3 an edited file was kept,
4 data are not what hashes.txt records, 5 the store cannot be used, 130 interrupted.
"""


class _Group(click.Group):
    """A group in which a first word that is no command is a target of `build`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            return "build", self.commands["build"], args
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """A first word may become a command, a target of `build` or an option of it."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            return [*found, *self.commands["build"].shell_complete(ctx, incomplete)]
        return [*found, *(CompletionItem(target) for target in _complete(ctx, None, incomplete))]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "--version", "-h"}
        if len(args) > 2 and args[0] in ("-e", "--experiment") and args[2] in self.commands:
            args = [args[2], *args[:2], *args[3:]]
        if (not args and not ctx.resilient_parsing) or (args and args[0].startswith("-") and args[0] not in own):
            args = ["build", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labmake", message="labmake %(version)s")
def command() -> None:
    pass


def _complete(context: click.Context, parameter: click.Parameter | None, incomplete: str) -> list[str]:
    """The targets that a word may become."""
    from labmake.cli.completing import complete_targets

    return complete_targets(context, parameter, incomplete)


def _complete_experiment(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The experiments that a word may become."""
    from labmake.cli.completing import complete_experiments

    return complete_experiments(incomplete)


_EXPERIMENT = click.option(
    "-e",
    "--experiment",
    metavar="EXP",
    help="The experiment, or a part of its name.",
    shell_complete=_complete_experiment,
)


class _Build(click.Command):
    """A command whose `--set` takes a pattern and all the NAME=VALUE words that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_sets_joined(args)))


def _sets_joined(args: list[str]) -> Iterator[str]:
    """The words of a command line with each `--set` and what belongs to it as one word, its parts joined by NUL."""
    words = list(args)
    while words:
        word = words.pop(0)
        if word == "--":
            yield from [word, *words]
            return
        if word == "--set" and words:
            word = f"--set={words.pop(0)}"
        if word.startswith("--set="):
            while words and re.match(r"[a-z_]+=", words[0]):
                word += f"\0{words.pop(0)}"
        yield word


@command.command(cls=_Build)
@click.argument("targets", nargs=-1, shell_complete=_complete)
@click.option("-j", "--jobs", type=click.IntRange(1), default=None, metavar="N", help="Steps at once (all processors).")
@click.option("-n", "--dry-run", "dry", is_flag=True, help="Say what would be made, and make nothing.")
@click.option("-f", "--force", is_flag=True, help="Run the targets' own steps again.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure instead of going on with the rest.")
@click.option("--discard-edits", is_flag=True, help="Replace edited outputs; they are set aside.")
@click.option("-y", "--yes", is_flag=True, help="Answer yes to questions.")
@click.option("-q", "--quiet", is_flag=True, help="Tell only failures and the end.")
@click.option("--json", is_flag=True, help="Tell what happens as events on stdout, a JSON object a line.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATTERN NAME=VALUE…",
    shell_complete=_complete,
    help="What the steps of these targets book, in this build.",
)
@click.option("--budget", metavar="TIME", default="10m", envvar="LABMAKE_BUDGET", help="Ask before longer work (10m).")
@_EXPERIMENT
def build(jobs: int | None, **words: Any) -> int:
    """Bring TARGETS up to date (without any: the documents and all rules without wildcards of the experiment)."""
    from labmake.cli.building import Wishes, run_build

    question, changed, seeded = click.get_current_context().find_root().obj
    return run_build(Wishes(jobs=jobs or 0, question=question, changed=changed, seeded=seeded, **words))


@command.command()
@_EXPERIMENT
def status(experiment: str | None) -> int:
    """What is up to date, what would run and why, what failed, what was edited."""
    from labmake.cli.looking import run_status

    return run_status(experiment)


@command.command()
@click.argument("target", shell_complete=_complete)
@_EXPERIMENT
def why(target: str, experiment: str | None) -> int:
    """Why TARGET would be made again: what changed, old and new values, file and line."""
    from labmake.cli.looking import run_why

    return run_why(target, experiment)


@command.command()
@click.argument("target", shell_complete=_complete)
@click.option("-n", "--number", type=click.IntRange(1), default=1, metavar="N", help="How many changes to tell (1).")
@click.option("--history", type=click.IntRange(1), default=1000, metavar="N", help="Look at N commits at most (1000).")
@click.option("--since", default="", metavar="REV", help="Look at no commit that REV has.")
@click.option("-o", "--output", default="", metavar="FILE", help="Where to write a figure's difference, as PNG.")
@click.option("--json", is_flag=True, help="Tell all as one JSON object.")
@_EXPERIMENT
def blame(target: str, number: int, history: int, since: str, output: str, json: bool, experiment: str | None) -> int:
    """Which commit changed TARGET's content, and what in it did: from traces, nothing is run."""
    from labmake.cli.blaming import Asked, run_blame
    from labmake.experiments.blame import Wishes

    return run_blame(Asked(target, experiment, Wishes(number, history, since), output, json))


@command.command()
@_EXPERIMENT
def failures(experiment: str | None) -> int:
    """The steps that failed when they were last run: where, how, the last lines."""
    from labmake.cli.looking import run_failures

    return run_failures(experiment)


@command.command()
@click.argument("target", shell_complete=_complete)
@click.option("-f", "--follow", is_flag=True, help="If the step runs now, print what it prints until it ends.")
@_EXPERIMENT
def logs(target: str, follow: bool, experiment: str | None) -> int:
    """What TARGET's step printed when it last ran."""
    from labmake.cli.looking import run_logs

    return run_logs(target, experiment, follow)


@command.command()
@click.argument("target", shell_complete=_complete)
@click.argument("path", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written to PATH until the step ends.")
@_EXPERIMENT
def peek(target: str, path: str | None, follow: bool, experiment: str | None) -> int:
    """What TARGET's running step has written so far: its files, or with PATH the content of one."""
    from labmake.cli.peeking import run_peek

    return run_peek(target, path, experiment, follow)


@command.command()
@click.argument("target", shell_complete=_complete)
@click.option("--keep", is_flag=True, help="Keep the folder when the shell is left.")
@_EXPERIMENT
def shell(target: str, keep: bool, experiment: str | None) -> int:
    """A shell in the step folder of TARGET, with its inputs, its variables, and its command in the history."""
    from labmake.cli.shelling import run_shell

    return run_shell(target, experiment, keep)


@command.command()
@click.argument("target", shell_complete=_complete)
@_EXPERIMENT
def debug(target: str, experiment: str | None) -> int:
    """Run TARGET's step again in this terminal, with pdb where it fails; nothing is recorded."""
    from labmake.cli.debugging import run_debug

    return run_debug(target, experiment)


@command.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("file", type=click.Path())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_script(file: str, arguments: tuple[str, ...]) -> None:
    """Run FILE, a one-off script, with the project's modules, in the working directory; nothing is recorded."""
    from labmake.cli.running import run_file

    run_file(file, arguments)


@command.command()
@_EXPERIMENT
def rules(experiment: str | None) -> int:
    """Every rule of the experiment: what it makes, how, and where it is written."""
    from labmake.cli.listing import run_rules

    return run_rules(experiment)


@command.command()
@click.argument("targets", nargs=-1, shell_complete=_complete)
@click.option("--format", "form", type=click.Choice(["mermaid", "dot"]), default="mermaid", help="The language.")
@_EXPERIMENT
def graph(targets: tuple[str, ...], form: str, experiment: str | None) -> int:
    """The graph of TARGETS (what is built without any) and the steps that make them, as Mermaid or DOT."""
    from labmake.cli.listing import run_graph

    return run_graph(targets, form, experiment)


@command.command()
@click.argument("targets", nargs=-1, shell_complete=_complete)
@click.option("-j", "--jobs", type=click.IntRange(1), default=None, metavar="N", help="Steps at once (all processors).")
@_EXPERIMENT
def watch(targets: tuple[str, ...], jobs: int | None, experiment: str | None) -> int:
    """Build TARGETS, and again whenever something they were made from changes, until Ctrl-C."""
    from labmake.cli.building import Wishes
    from labmake.cli.watching import run_watch

    return run_watch(Wishes(targets=targets, jobs=jobs or 0, experiment=experiment))


@command.command()
@click.argument("targets", nargs=-1, shell_complete=_complete)
@click.option("-j", "--jobs", type=click.IntRange(1), default=None, metavar="N", help="Steps at once (all processors).")
@click.option("--budget", metavar="TIME", default="10m", help="Leave out what would take longer (10m).")
@click.option("--json", is_flag=True, help="Tell what is found as events on stdout, a JSON object a line.")
@_EXPERIMENT
def check(jobs: int | None, **words: Any) -> int:
    """Run the steps of TARGETS (without any: of the last build) twice and say what differs, and why."""
    from labmake.cli.checking import Wishes, run_check

    return run_check(Wishes(jobs=jobs or 0, **words))


@command.command()
@click.argument("targets", nargs=-1, required=True, shell_complete=_complete)
@click.option("-m", "--message", "reason", metavar="WHY", default="", help="Why the results still hold.")
@_EXPERIMENT
def keep(targets: tuple[str, ...], reason: str, experiment: str | None) -> int:
    """Accept the results of TARGETS as they are although code or environment changed; who and why is recorded."""
    from labmake.cli.keeping import run_keep

    return run_keep(targets, reason, experiment)


@command.command()
@click.option("--keep-days", type=click.FloatRange(0), default=30, metavar="N", help="Keep what was used since (30).")
@click.option("-n", "--dry-run", "dry", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Answer yes to questions.")
def gc(keep_days: float, dry: bool, yes: bool) -> int:
    """Remove what no worktree has and nobody used lately, after saying what and how much."""
    from labmake.cli.collecting import run_gc

    return run_gc(keep_days, dry, yes)


@command.command()
def doctor() -> int:
    """Look at this machine and this project's store, and say what is wrong or could be better."""
    from labmake.cli.doctoring import run_doctor

    return run_doctor()


@command.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script by which SHELL completes commands and targets."""
    from labmake.cli.completing import run_completion

    return run_completion(shell, command)


@command.command()
@click.argument("targets", nargs=-1, shell_complete=_complete)
@_EXPERIMENT
def restore(targets: tuple[str, ...], experiment: str | None) -> int:
    """Put back what was recorded for TARGETS (all); edited files are set aside."""
    from labmake.cli.tidying import run_restore

    return run_restore(targets, experiment)


@command.command()
@click.argument("targets", nargs=-1, shell_complete=_complete)
@_EXPERIMENT
def clean(targets: tuple[str, ...], experiment: str | None) -> int:
    """Remove generated files (of TARGETS) that can be restored from the store; edited files stay."""
    from labmake.cli.tidying import run_clean

    return run_clean(targets, experiment)


@command.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False))
def init(folder: str) -> int:
    """Make FOLDER (here) a labmake project: adds what is missing, overwrites nothing."""
    from labmake.cli.starting import run_init

    return run_init(folder)


def main(question: str = "", changed: str | None = None, seeded: bool = True) -> None:
    """Run the process's command line and exit; gear 1 calls it `question` and found `changed` paths, a line each.

    Raises Restart if rule files would have to be run and the hash seed is not fixed (`seeded`).
    """
    code = run(sys.argv[1:], question, changed, seeded)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: an interrupt of what is only ending shows a traceback
    sys.exit(code)


def run(arguments: Sequence[str], question: str = "", changed: str | None = None, seeded: bool = True) -> int:
    """Run the command line; its exit code. Users' mistakes are told in three parts, never as a traceback."""
    try:
        code = command.main(
            list(arguments), prog_name="labmake", standalone_mode=False, obj=(question, changed, seeded)
        )
        return code if isinstance(code, int) else 0
    except LabmakeError as error:
        click.echo(f"error: {format_error(error)}", err=True)
        return error.code
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "labmake"
        misuse = Misuse(error.format_message(), [], [f"`{path} --help` says what there is"])
        click.echo(f"error: {format_error(misuse)}", err=True)
        return misuse.code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        from labmake.engine.failures import disk_error

        click.echo(f"error: {format_error(disk_error(error))}", err=True)
        return StoreError.code


if __name__ == "__main__":
    main()
