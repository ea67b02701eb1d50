"""How a person's shell is started in a step folder: with their own settings, the step's variables and its command in
the history, and without touching their history file.

A shell reads its user's files, which may set variables; what the step does not have is then not handed on to the
programs that are started, and what it has is put back. So they see what the recipe sees.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PROMPT = "(step) "
"""What stands before the prompt."""

OWN = ("PWD", "OLDPWD", "SHLVL", "_")
"""The variables that a shell sets by itself and hands on."""

BASH = """
_labmake_kept=$(export -p)
[ -f ~/.bashrc ] && . ~/.bashrc
eval "$_labmake_kept"
for _labmake_name in $(compgen -e); do
    case {names} in *" $_labmake_name "*) ;; *) export -n "$_labmake_name" ;; esac
done
unset _labmake_kept _labmake_name HISTFILE
history -s -- {command}
PS1={prompt}"$PS1"
cd -- {folder}
"""

ZSHENV = """
_labmake_kept=$(export -p)
ZDOTDIR={dots}
[[ -f $ZDOTDIR/.zshenv ]] && . $ZDOTDIR/.zshenv
_labmake_dots=$ZDOTDIR
ZDOTDIR={own}
"""

ZSHRC = """
ZDOTDIR=$_labmake_dots
[[ -f $ZDOTDIR/.zshrc ]] && . $ZDOTDIR/.zshrc
eval $_labmake_kept
for _labmake_name in ${{(k)parameters[(R)*export*]}}; do
    [[ {names} == *" $_labmake_name "* ]] || typeset +x $_labmake_name
done
unset _labmake_kept _labmake_name _labmake_dots
fc -p
HISTSIZE=1000 SAVEHIST=0
print -rs -- {command}
PROMPT={prompt}$PROMPT
cd -- {folder}
"""

FISH = """
for name in (set --names --export)
    contains -- $name {names}; or set --unexport $name $$name
end
{variables}
set --erase --global XDG_DATA_HOME
{data}
functions --copy fish_prompt _labmake_prompt
function fish_prompt; printf '%s' {prompt}; _labmake_prompt; end
cd -- {folder}
"""


def start_of(
    shell: str, base: Path, folder: str, command: Sequence[str], environment: Mapping[str, str], secrets: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The command and variables that start a shell, with what it reads written to `base`.

    The values of variables named in `secrets` are not written. A shell that is not known starts with the variables
    alone.
    """
    starts: dict[str, Callable[..., tuple[list[str], dict[str, str]]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    start = starts.get(os.path.basename(shell))
    if start is None:
        return [shell, "-i"], dict(environment)
    return start(shell, base, folder, command, environment, secrets)


def line_of(shell: str, command: Sequence[str]) -> str:
    """A command as one would type it into a shell."""
    in_fish = os.path.basename(shell) == "fish"
    return " ".join(
        _fish_word(word) if in_fish and shlex.quote(word) != word else shlex.quote(word) for word in command
    )


def _bash(
    shell: str, base: Path, folder: str, command: Sequence[str], environment: Mapping[str, str], _: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    words = {
        "command": line_of(shell, command),
        "prompt": PROMPT,
        "folder": folder,
        "names": f" {' '.join([*environment, *OWN])} ",
    }
    text = BASH.format(**{name: shlex.quote(word) for name, word in words.items()})
    return [shell, "--rcfile", str(_written(base / "bashrc", text)), "-i"], dict(environment)


def _zsh(
    shell: str, base: Path, folder: str, command: Sequence[str], environment: Mapping[str, str], _: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    words = {
        "command": line_of(shell, command),
        "prompt": PROMPT,
        "folder": folder,
        "own": str(base / "zsh"),
        "names": f" {' '.join([*environment, *OWN])} ",
        "dots": os.environ.get("ZDOTDIR") or os.path.expanduser("~"),
    }
    quoted = {name: shlex.quote(word) for name, word in words.items()}
    _written(base / "zsh" / ".zshenv", ZSHENV.format(**quoted))
    _written(base / "zsh" / ".zshrc", ZSHRC.format(**quoted))
    return [shell, "-i"], {**environment, "ZDOTDIR": str(base / "zsh")}


def _fish(
    shell: str, base: Path, folder: str, command: Sequence[str], environment: Mapping[str, str], secrets: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """fish has its history in XDG_DATA_HOME, which is another one until it has started."""
    shown = {name: value for name, value in environment.items() if name not in secrets}
    data = environment.get("XDG_DATA_HOME")
    text = FISH.format(
        names=" ".join(_fish_word(name) for name in (*environment, *OWN)),
        variables="\n".join(f"set --global --export {name} {_fish_word(value)}" for name, value in shown.items()),
        data=f"set --global --export XDG_DATA_HOME {_fish_word(data)}" if data else "",
        prompt=_fish_word(PROMPT),
        folder=_fish_word(folder),
    )
    line = line_of(shell, command).replace("\\", "\\\\").replace("\n", "\\n")
    _written(base / "fish-data" / "fish" / "fish_history", f"- cmd: {line}\n  when: {int(time.time())}\n")
    start = _written(base / "config.fish", text)
    own = {**environment, "XDG_DATA_HOME": str(base / "fish-data")}
    return [shell, "--interactive", "--init-command", f"source {_fish_word(str(start))}"], own


def _fish_word(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path
