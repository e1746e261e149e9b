"""First steps: a file to start from, what the machine has, words that are mistyped, shells that complete."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from splitproxy import listening
from splitproxy.children import child_environment
from splitproxy.cli import VERBS, completion, init, machine, main, premises
from splitproxy.core.rollout.state import PHASES

SHOP = json.loads((Path(__file__).parent / "rollout.json").read_text())


# --- init -------------------------------------------------------------------------------------------------------------
class TestInit:
    def test_what_it_writes_is_valid_and_is_not_written_over(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["init"]) == 0
        assert "splitproxy check splitproxy.yaml" in capsys.readouterr().out
        assert main(["check", "splitproxy.yaml"]) == 0
        out, err = capsys.readouterr()
        assert "Rollout shop" in out
        assert err == "", "without a warning"
        Path("splitproxy.yaml").write_text("mine")
        assert main(["init", "splitproxy.yaml"]) == 1
        assert "--force" in capsys.readouterr().err
        assert Path("splitproxy.yaml").read_text() == "mine"
        assert main(["init", "--force"]) == 0
        assert main(["check", "splitproxy.yaml"]) == 0

    def test_so_it_is_with_everything_that_is_commented_out(self, tmp_path, capsys):
        text, count = re.subn(r"^( *)# (\w+: )", r"\1\2", init.starter("x.yaml"), flags=re.MULTILINE)
        assert count > 10
        file = tmp_path / "all.yaml"
        file.write_text(text)
        assert main(["check", str(file)]) == 0, capsys.readouterr().err

    def test_a_name_with_spaces_is_quoted_and_a_dash_is_standard_output(self, tmp_path, capsys):
        assert main(["init", "-"]) == 0
        assert capsys.readouterr().out == init.starter("splitproxy.yaml")
        assert "run -c 'my shop.yaml'" in init.starter("my shop.yaml")

    def test_where_it_cannot_be_written_it_says_why(self, tmp_path, capsys):
        assert main(["init", str(tmp_path / "nowhere/x.yaml")]) == 1
        assert "No such file or directory" in capsys.readouterr().err


# --- doctor -----------------------------------------------------------------------------------------------------------
class TestDoctor:
    def levels(self, findings):
        return {(one.what, one.level) for one in findings}

    @pytest.fixture
    def file(self, tmp_path):
        """Return a function that writes a configuration whose addresses are free."""

        def write(**changes):
            with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
                free = [f"127.0.0.1:{one.getsockname()[1]}" for one in (first, second)]
            text = init.starter("x").replace("127.0.0.1:8080", free[0])
            path = tmp_path / "shop.yaml"
            more = {"admin": {"address": free[1]}, **changes}
            path.write_text(text + "".join(f"{key}: {json.dumps(value)}\n" for key, value in more.items()))
            path.chmod(0o644)
            return path, *free

        return write

    def test_on_this_machine_everything_is_looked_at_and_nothing_fails(self, capsys):
        assert main(["doctor", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert {one["what"] for one in told["findings"]} >= {
            *("python", "libraries", "kernel", "descriptors", "processors", "clock", "admin"),
        }
        assert told["errors"] == 0
        assert all(one["remedy"] for one in told["findings"] if one["level"] != "ok")

    def test_few_descriptors_are_told_with_what_to_do(self):
        code = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); " \
               "from splitproxy.cli import main; sys.exit(main(['doctor']))"  # fmt: skip
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert re.search(r"error +descriptors +200 for each process: some 150 clients", done.stdout)
        assert "LimitNOFILE" in done.stdout

    def test_a_library_that_is_missing_or_too_old_is_an_error(self, monkeypatch):
        monkeypatch.setattr(machine, "_LIBRARIES", {"nowhere-to-be-found": "nowhere_to_be_found", "rich": "rich"})
        monkeypatch.setattr(machine, "_least_versions", lambda: {"rich": "9999.1"})
        found = [one for one in machine.findings() if one.what == "libraries"]
        assert [one.level for one in found] == ["error", "error", "ok"]
        assert "9999.1 or later is needed" in found[1].text

    def test_a_kernel_without_a_feature_is_an_error_that_names_it(self, monkeypatch):
        def refused():
            raise PermissionError

        monkeypatch.setitem(machine._FEATURES, "memory files", refused)
        (kernel,) = (one for one in machine.findings() if one.what == "kernel")
        assert (kernel.level, "memory files" in kernel.text) == ("error", True)

    @pytest.mark.parametrize(("synchronised", "level"), [(True, "ok"), (None, "ok"), (False, "warning")])
    def test_a_clock_that_is_not_synchronised_is_a_warning(self, monkeypatch, synchronised, level):
        monkeypatch.setattr(machine, "_synchronised", lambda: synchronised)
        assert next(one.level for one in machine.findings() if one.what == "clock") == level

    def test_a_good_file_on_free_ports(self, file):
        path, listener, _ = file()
        found = list(premises.of_file(str(path)))
        assert {one.level for one in found} == {"ok"}
        assert f"{listener} is free" in [one.text for one in found]

    def test_a_port_in_use_an_open_file_and_a_folder_that_is_not_there(self, file, capsys):
        path, listener, _ = file(state={"path": "nowhere/s.db"}, accessLog={"path": "/nowhere/access.log"})
        path.chmod(0o666)
        with socket.create_server(listening.split_address(listener)):
            assert main(["doctor", "-c", str(path)]) == 1
        out = capsys.readouterr().out
        assert re.search(rf"error +listener +{listener}: the port is in use by another program", out)
        assert f"ss -ltnp 'sport = :{listener.rpartition(':')[2]}'" in out
        assert re.search(r"error +permissions +anybody may\s+change\s", out)
        assert re.search(r"error +state +\S+/nowhere/s.db\s+cannot\s+be\s+written", out)
        assert "error    access log  /nowhere/access.log cannot be written" in out
        assert out.endswith("ok.\n")

    def test_a_key_that_anybody_may_read(self, tmp_path):
        key = tmp_path / "tls.key"
        key.write_text("-----BEGIN PRIVATE KEY-----\n")
        key.chmod(0o644)
        assert self.levels(premises._permissions([key])) == {("permissions", "warning")}
        key.chmod(0o600)
        assert self.levels(premises._permissions([key])) == {("permissions", "ok")}

    def test_a_file_with_errors(self, tmp_path):
        path = tmp_path / "bad.yaml"
        path.write_text("listeners: 3")
        (finding,) = premises.of_file(str(path))
        assert (finding.level, finding.remedy) == ("error", f"splitproxy check {path} shows each with its line.")

    def test_state_that_will_be_lost_is_a_warning(self, monkeypatch, tmp_path):
        monkeypatch.setattr(premises.mounts, "loss", lambda path: f"{path.name} is in memory")
        (finding,) = (one for one in premises._lasting(tmp_path / "s.db") if "lost" in one.text)
        assert (finding.level, finding.text.endswith("s.db is in memory")) == ("warning", True)

    def test_where_a_proxy_is_expected_and_none_is(self, capsys):
        assert main(["doctor", "--admin", "127.0.0.1:1"]) == 1
        assert "error    admin" in capsys.readouterr().out

    def test_what_answers_may_be_something_else_or_another_version(self, api):
        admin = f"127.0.0.1:{api.server_address[1]}"
        api.says((200, {"hello": 1}), path="/healthz")
        assert self.levels(premises.of_admin(admin, expected=True)) == {("admin", "error")}
        api.says((200, {"status": "ok", "version": "0.0.1"}), path="/healthz")
        api.says((503, {"error": "not_ready", "detail": "worker 1 starts"}), path="/readyz")
        api.says((401, {"error": "unauthorized", "detail": "a token is needed"}), path="/api/v1/config")
        found = list(premises.of_admin(admin, expected=True))
        assert [one.level for one in found] == ["warning"] * 3
        assert ["0.0.1" in found[0].text, "worker 1 starts" in found[1].text, found[2].remedy] == [
            *(True, True, "Set SPLITPROXY_TOKEN."),
        ]


# --- mistyped words ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], "there is no verb 'statsu': did you mean status?"),
        (["chekc", "x.yaml"], "did you mean check?"),
        (["xyzzy"], "there is no verb 'xyzzy'; splitproxy --help lists what there is"),
        (["status", "--wach"], "status does not know '--wach': did you mean --watch?"),
        (["top", "--rout", "x", "--srot", "rate"], "did you mean --sort?"),
        (["reload", "now"], "reload does not know 'now'"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(words, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_without_a_word_there_is_help(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert (out, "doctor" in err) == ("", True)


# --- top --------------------------------------------------------------------------------------------------------------
class TestTop:
    def test_json_has_one_form(self, api, capsys):
        window = {"rate": 8.5, "successRate": 0.99, "p50": 0.004, "p99": 0.5}
        backend = {
            "name": "v1",
            "role": "primary",
            "weight": 90.0,
            "inFlight": 2,
            "signals": {"10s": window, "60s": window},
        }
        api.says((200, [{"name": "shop", "rules": [{"name": "0", "backends": [backend]}]}]), path="/api/v1/routes")
        address = {"address": "127.0.0.1:9001", "mirror": False, "healthy": True, "ejected": False, "inUse": False}
        address |= {
            "panic": False,
            "inFlight": 1,
            "idle": 2,
            "open": 3,
            "pending": 4,
            "requests": 5,
            "connectFailures": 6,
        }
        api.says((200, [{"name": "v1", "addresses": [address, {**address, "mirror": True}]}]), path="/api/v1/upstreams")
        assert main(["top", "--once", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        flow = {"route": "shop", "rule": "0", "upstream": "v1", "role": "primary", "weight": 90.0, "rate": 8.5}
        assert told["routes"] == [{**flow, "success": 0.99, "p50": 0.004, "p99": 0.5, "inFlight": 2}]
        where = {"upstream": "v1", "address": "127.0.0.1:9001", "mirror": False, "health": "unused", "requests": 5}
        counts = {"inFlight": 1, "waiting": 4, "idle": 2, "connectFailures": 6}
        assert told["addresses"] == [{**where, **counts}, {**where, **counts, "mirror": True}]
        assert main(["top"]) == 0
        assert re.search(r"shop/0 +v1 +primary +90 % +8.5 +99.00 % +4 +500 +2\n", capsys.readouterr().out)

    def test_what_cannot_be_shown_is_said(self, api, capsys):
        api.says((200, []), path="/api/v1/routes?route=nowhere")
        assert main(["top", "--route", "nowhere", "--once"]) == 1
        assert capsys.readouterr().err == "there is no route 'nowhere'\n"
        assert main(["top", "--admin", "127.0.0.1:1"]) == 1


# --- drain ------------------------------------------------------------------------------------------------------------
def test_drain_may_wait_until_nobody_answers(api, capsys):
    api.says((202, {"draining": True}), method="POST", path="/-/drain")
    busy = [{"addresses": [{"inFlight": 2}]}]
    api.says((200, busy), (200, busy), (0, None), path="/api/v1/upstreams")
    assert main(["drain", "--wait"]) == 0
    assert capsys.readouterr().out == "It has finished its requests and ended.\n"
    assert len(api.asked) == 4


# --- completion -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def scripts():
    verbs = completion.verbs()
    return {shell: make(verbs) for shell, make in completion.shells.SCRIPTS.items()}


@pytest.fixture
def command(tmp_path):
    """Return a folder for PATH where `splitproxy` is this program."""
    program = tmp_path / "bin/splitproxy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m splitproxy "$@"\n')
    program.chmod(0o755)
    return program.parent


def in_shell(command, words, folder, api):
    admin = f"127.0.0.1:{api.server_address[1]}"
    api.says((200, [SHOP, {**SHOP, "name": "pay"}]), path="/api/v1/rollouts?history=0")
    environment = {**child_environment(), "SPLITPROXY_ADMIN": admin, "HOME": str(folder), "TERM": "xterm"}
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    done = subprocess.run(
        [*command, *words], env=environment, capture_output=True, text=True, timeout=30, check=True, cwd=folder.parent
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


IN_BASH = """
source ./script
t() { COMP_LINE="$*"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _splitproxy splitproxy; echo "${COMPREPLY[*]}"; }
t splitproxy st
t splitproxy status --w
t splitproxy status shop --wait Su
t splitproxy pause ''
t splitproxy check scr
t splitproxy run --config scr
t splitproxy top --sort ''
t splitproxy status --timeout ''
t splitproxy completion ''
t splitproxy pause --admin http : //127.0.0.1:1 ''
"""


def test_bash_completes(scripts, command, api):
    (command.parent / "script").write_text(scripts["bash"])
    told = in_shell(["bash", "--norc", "-c", IN_BASH], [], command, api)
    assert told == ["status start", "--watch --wait", "Succeeded", "shop pay", "script", "script",
                    "rate success p99 name", "", "bash zsh fish", ""]  # fmt: skip


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(scripts, command, api):
    (command.parent / "script").write_text(scripts["fish"])
    asked = ["splitproxy st", "splitproxy pause ", "splitproxy status --wai", "splitproxy top --sort r"]
    code = "source ./script; " + "; ".join(f"complete -C '{line}'" for line in asked)
    told = in_shell(["fish", "--no-config", "-c", code], [], command, api)
    assert [line.split("\t")[0] for line in told] == ["start", "status", "pay", "shop", "--wait", "rate"]


IN_ZSH = """
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1=; autoload -Uz compinit; compinit -u; source ./script; bindkey '^I' complete-word; echo rea''dy"
zpty -r z line '*ready*'
zpty -w -n z $'splitproxy pause sh\\t --ad\\t\\n'
zpty -r z line '*--admin*'
echo "$line"
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes(scripts, command, api):
    (command.parent / "script").write_text(scripts["zsh"])
    told = "".join(in_shell(["zsh", "-f", "-c", IN_ZSH], [], command, api))
    assert "pause shop" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)


def test_every_verb_and_every_option_with_its_values_is_known_to_every_shell(scripts):
    for script in scripts.values():
        assert set(VERBS) <= set(re.findall(r"[\w-]+", script))
        assert " ".join(PHASES) in script
        for option in ("follow", "once", "revision", "full", "header"):
            assert option in script


def test_names_come_at_once_or_not_at_all(capsys):
    assert main(["completion", "--names", "--admin", "127.0.0.1:1"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["completion"]) == 2


def test_every_verb_has_its_place_in_the_documents():
    text = (Path(__file__).parents[2] / "docs/commands.md").read_text()
    assert [verb for verb in VERBS if not re.search(rf"`(splitproxy )?{verb}\b", text)] == []
