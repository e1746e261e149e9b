"""The completion scripts of three shells."""

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from splitproxy.cli.completion import Option, Verb

_BASH: Final = r"""# bash completion for splitproxy. To use it now:  source <(splitproxy completion bash)
# To keep it:  splitproxy completion bash > ~/.local/share/bash-completion/completions/splitproxy
_splitproxy() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} kind= words=
    local -a admin=()
    # Of the line, not of the words: bash divides URLs at their colons.
    [[ $COMP_LINE =~ --admin[=\ ]([^\ ]+) ]] && admin=(--admin "${BASH_REMATCH[1]}")
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words="@VERBS@ --help --version"
    else
        case "$verb $before" in
@VALUES@
            *)
                case $verb in
@FOLLOWING@
                esac
                ;;
        esac
    fi
    case $kind in
        file) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$word")); return ;;
        rollout) words+=" $("$1" completion --names "${admin[@]}" 2>/dev/null)" ;;
        value) return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -F _splitproxy splitproxy
"""
_ZSH: Final = r"""#compdef splitproxy
# zsh completion for splitproxy. To use it now:  source <(splitproxy completion zsh)
# To keep it:  splitproxy completion zsh > a folder of $fpath/_splitproxy
_splitproxy_rollouts() {
    local -a names admin
    [[ "${(j: :)words}" =~ '--admin[= ]([^ ]+)' ]] && admin=(--admin $match[1])
    names=(${(f)"$($splitproxy completion --names $admin 2>/dev/null)"})
    compadd -a names
}
_splitproxy() {
    local splitproxy=$words[1] verb=$words[2]
    local -a verbs=(
@VERBS@
    )
    if ((CURRENT == 2)); then
        _describe verb verbs
        return
    fi
    shift words
    ((CURRENT--))
    case $verb in
@FOLLOWING@
    esac
}
if [ "$funcstack[1]" = _splitproxy ]; then _splitproxy "$@"; else compdef _splitproxy splitproxy; fi
"""
_FISH: Final = r"""# fish completion for splitproxy. To use it now:  splitproxy completion fish | source
# To keep it:  splitproxy completion fish > ~/.config/fish/completions/splitproxy.fish
function __splitproxy_rollouts
    set -l line (commandline -opc)
    set -l admin (string match -rg -- '--admin[= ](\S+)' "$line")
    $line[1] completion --names (test -n "$admin"; and printf '%s\n' --admin $admin) 2>/dev/null
end
complete -c splitproxy -f
"""


def bash(verbs: Sequence["Verb"]) -> str:
    """Return the script for bash 4.4 or later."""
    values, following = [], []
    for verb in verbs:
        for option in verb.options:
            if option.valued:
                patterns = "|".join(f'"{verb.name} {flag}"' for flag in option.flags)
                values.append(f"            {patterns}) {_bash_value(option.kind, option.choices)} ;;")
        flags = " ".join(flag for option in verb.options for flag in option.flags)
        what = _bash_value(verb.kind, verb.choices) if verb.kind or verb.choices else ""
        # A word that begins as an option does is one.
        following.append(
            f"                    {verb.name}) if [[ $word == -* ]]; then words={shlex.quote(f'{flags} --help')}; "
            f"else {what or 'words='}; fi ;;"
        )
    names = " ".join(verb.name for verb in verbs)
    script = _BASH.replace("@VERBS@", names).replace("@VALUES@", "\n".join(values))
    return script.replace("@FOLLOWING@", "\n".join(following))


def _bash_value(kind: str, choices: Sequence[str]) -> str:
    return f"words={shlex.quote(' '.join(choices))}" if choices else f"kind={kind or 'value'}"


def zsh(verbs: Sequence["Verb"]) -> str:
    """Return the script for zsh 5 or later."""
    names = "\n".join(f"        {shlex.quote(f'{verb.name}:{verb.about}')}" for verb in verbs)
    following = []
    for verb in verbs:
        specs = [_zsh_option(option, flag) for option in verb.options for flag in option.flags]
        if verb.kind or verb.choices:
            specs.append(f"1:{verb.kind or 'what'}:{_zsh_value(verb.kind, verb.choices)}")
        following.append(f"        {verb.name}) _arguments {' '.join(map(shlex.quote, specs)) or ':'} ;;")
    return _ZSH.replace("@VERBS@", names).replace("@FOLLOWING@", "\n".join(following))


def _zsh_option(option: "Option", flag: str) -> str:
    about = option.about.replace("[", "(").replace("]", ")").replace(":", ",")
    value = f":{option.kind or 'value'}:{_zsh_value(option.kind, option.choices)}" if option.valued else ""
    return f"{flag}[{about}]{value}"


def _zsh_value(kind: str, choices: Sequence[str]) -> str:
    if choices:
        return f"({' '.join(choices)})"
    return {"file": "_files", "rollout": "_splitproxy_rollouts"}.get(kind, " ")


def fish(verbs: Sequence["Verb"]) -> str:
    """Return the script for fish 3.4 or later."""
    lines = [_fish("__fish_use_subcommand", ["-a", verb.name, "-d", verb.about]) for verb in verbs]
    for verb in verbs:
        when = f"__fish_seen_subcommand_from {verb.name}"
        lines += [_fish(when, _fish_option(option)) for option in verb.options]
        if verb.kind or verb.choices:
            lines.append(_fish(when, _fish_value(verb.kind, verb.choices)))
    return _FISH + "\n".join(lines) + "\n"


def _fish(when: str, words: Sequence[str]) -> str:
    return f"complete -c splitproxy -n {shlex.join([when, *words])}"


def _fish_option(option: "Option") -> list[str]:
    words = []
    for flag in option.flags:
        words += ["-l", flag[2:]] if flag.startswith("--") else ["-s", flag[1:]]
    value = ["-r", *_fish_value(option.kind, option.choices)] if option.valued else []
    return [*words, *value, "-d", option.about]


def _fish_value(kind: str, choices: Sequence[str]) -> list[str]:
    if choices:
        return ["-f", "-a", " ".join(choices)]
    return {"file": ["-F"], "rollout": ["-a", "(__splitproxy_rollouts)"]}.get(kind, ["-f"])


SCRIPTS: Final[dict[str, Callable[[Sequence["Verb"]], str]]] = {"bash": bash, "zsh": zsh, "fish": fish}
"""Shell -> what makes its script."""
