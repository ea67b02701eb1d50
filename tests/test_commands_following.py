"""`labmake logs -f`: what a running step prints is shown while it runs, whole, and the command ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from space import Space, wait_until


def follow(space: Space, target: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "labmake.cli.entry", "logs", "-f", target],
        cwd=space.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def held(gate: Path) -> str:
    return f"until test -e {gate}; do sleep 0.05; done"


def test_lines_are_shown_while_the_step_runs_and_to_the_last_although_the_next_step_follows_at_once(
    space: Space,
) -> None:
    gate = space.root.parent / "gate"
    space.write(
        "script.py",
        f"""
        rule("data/slow.txt",
             run=sh("echo first; echo started >> {space.notes}; {held(gate)}; seq 1000; touch {{out}}"))
        rule("data/next.txt", slow="data/slow.txt", run=sh("echo of the next; touch {{out}}"))
        """,
    )
    build = space.start("build", "-j", "1")
    wait_until(space.noted)
    following = follow(space, "slow")
    assert following.stdout is not None and following.stdout.readline() == "first\n"
    assert following.poll() is None and not space.exists("data/slow.txt")
    gate.touch()
    build.end()
    rest, _ = following.communicate(timeout=60)
    assert rest.split() == [str(number) for number in range(1, 1001)] and following.returncode == 0
    assert space.run("logs", "slow").text == "first\n" + rest


def test_the_log_of_a_step_that_fails_is_shown_to_its_end(space: Space) -> None:
    gate = space.root.parent / "gate"
    text = f'rule("data/bad.txt", run=sh("echo first; echo started >> {space.notes}; {held(gate)}; echo last; exit 3"))'
    space.write("script.py", text)
    build = space.start("build")
    wait_until(space.noted)
    following = follow(space, "bad")
    assert following.stdout is not None and following.stdout.readline() == "first\n"
    gate.touch()
    build.end(code=1)
    assert following.communicate(timeout=60)[0] == "last\n"


def test_what_does_not_run_now_is_told_from_its_last_run(space: Space) -> None:
    space.write("script.py", 'rule("data/a.txt", run=sh("echo said; touch {out}"))')
    space.build()
    assert space.run("logs", "-f", "a").text == "said\n"


def test_a_secret_is_not_shown_while_its_step_runs_either(space: Space) -> None:
    gate = space.root.parent / "gate"
    text = f"""
        rule("data/a.txt", secrets=["PGPASSWORD"],
             run=sh("echo is $PGPASSWORD; echo x >> {space.notes}; {held(gate)}; echo end; touch {{out}}"))
        """
    space.write("script.py", text)
    build = space.start("build", env={"PGPASSWORD": "sesame-street"})
    wait_until(space.noted)
    following = follow(space, "a")
    assert following.stdout is not None
    wait_until(lambda: (space.root / ".git/labmake/steps").glob("*/*/job"))
    gate.touch()
    build.end()
    shown = following.communicate(timeout=60)[0]
    assert "sesame" not in shown and shown == "is [secret]\nend\n"
