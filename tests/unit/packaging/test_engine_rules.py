"""What the proxy in front of Docker's API lets through, as a table."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packaging/docker"))

import engine_rules

OURS = {"com.docker.compose.project": "bot"}
TRIAL = {"com.docker.compose.project": "bot-try-7"}
THEIRS = {"com.docker.compose.project": "botany"}
KNOWN = {
    "containers": {"mine": OURS, "trial": TRIAL, "theirs": THEIRS}, "networks": {"bot_default": OURS, "bridge": {}},
    "exec": {"e1": OURS, "e2": THEIRS},
}  # fmt: skip


@pytest.fixture
def rules(tmp_path):
    (tmp_path / "home/code").mkdir(parents=True)
    (tmp_path / "home/escape").symlink_to("/etc")
    return engine_rules.Rules("bot", "agentctl-bot", [str(tmp_path / "home"), "/var/lib/agentctl/bot"],
                              lambda kind, name: KNOWN[kind].get(name, {}))  # fmt: skip


def container(**config) -> bytes:
    return json.dumps({"Image": "x", "Labels": OURS, "HostConfig": config}).encode()


@pytest.mark.parametrize("asked", [
    "GET /_ping", "HEAD /_ping", "GET /v1.41/version", "GET /v1.41/containers/json?all=1",
    "GET /containers/theirs/json", "GET /v1.41/images/sha256:0123/json", "GET /images/agentctl-bot:g7/json",
    "GET /events?since=1", "GET /volumes",
    "POST /v1.41/containers/mine/start", "POST /containers/trial/stop?t=10", "POST /containers/mine/wait",
    "POST /containers/mine/rename?name=x", "GET /containers/mine/logs?stdout=1", "DELETE /containers/mine?force=1&v=0",
    "DELETE /containers/mine", "DELETE /networks/bot_default", "POST /exec/e1/start",
    "POST /images/abc/tag?repo=agentctl-bot&tag=g3",
    "POST /build?t=agentctl-bot:g3&networkmode=none",
])  # fmt: skip
def test_what_is_needed_is_let_through(rules, asked):
    assert rules.verdict(*asked.split()) == ""


@pytest.mark.parametrize("asked", [
    "POST /containers/theirs/stop", "POST /containers/nobody/stop", "GET /containers/theirs/logs",
    "DELETE /containers/theirs", "DELETE /containers/mine?v=1", "DELETE /containers/mine?v=true",
    "DELETE /containers/mine?v=0&v=1", "POST /containers/theirs/exec", "POST /containers/mine/attach",
    "PUT /containers/mine/archive?path=/", "GET /containers/mine/archive?path=/", "GET /containers/mine/export",
    "POST /containers/mine/update", "GET /containers/mine", "POST /containers/mine/logs", "GET /containers/mine/start",
    "POST /exec/e2/start", "POST /exec/1/start", "GET /exec/e2/json", "DELETE /networks/bridge",
    "POST /images/create?fromImage=x", "POST /images/load", "DELETE /images/agentctl-bot:g1",
    "POST /images/abc/tag?repo=python", "POST /commit?container=mine", "POST /containers/prune", "POST /volumes/prune",
    "DELETE /volumes/data", "POST /images/prune", "POST /networks/prune", "DELETE /networks/x", "POST /session",
    "POST /grpc", "GET /secrets", "POST /swarm/init", "POST /plugins/pull", "POST /build?t=python",
    "POST /build?t=agentctl-bot&remote=http://x", "POST /build?t=agentctl-bot&networkmode=host",
    "POST /build?t=agentctl-bot&pull=1", "POST /build?t=agentctl-bot&version=2", "POST /build",
    "GET /containers/../secrets", "GET //containers/json", "POST /containers/theirs%2fstop",
    "GET /containers/json%2f..%2fx", "DELETE /containers/mine?x=1;v=1",
])  # fmt: skip
def test_what_is_not_needed_is_refused(rules, asked):
    assert rules.verdict(*asked.split())


PLAIN = [
    {},
    {"NetworkMode": "bot_default"},
    {"NetworkMode": "none"},
    {"Privileged": False, "CapAdd": None, "Devices": []},
    {"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"], "ReadonlyRootfs": True, "Tmpfs": {"/tmp": ""}},
    {"MaskedPaths": None, "ReadonlyPaths": None, "IpcMode": "private", "PidMode": "", "Sysctls": {}, "Init": True},
    {"Binds": ["/var/lib/agentctl/bot/state:/state:rw", "data:/data"]},
    {"Mounts": [{"Type": "bind", "Source": "/var/lib/agentctl/bot", "Target": "/x"}]},
    {"Mounts": [{"Type": "tmpfs", "Target": "/t"}]},
    {"Mounts": [{"Type": "volume", "Source": "data", "Target": "/x"}]},
]
RIGHTS = [
    {"Privileged": True}, {"CapAdd": ["SYS_ADMIN"]}, {"Devices": [{"PathOnHost": "/dev/sda"}]}, {"PidMode": "host"},
    {"PidMode": "container:theirs"}, {"NetworkMode": "host"}, {"NetworkMode": "container:theirs"}, {"IpcMode": "host"},
    {"UsernsMode": "host"}, {"UTSMode": "host"}, {"CgroupParent": "/"}, {"CgroupnsMode": "host"}, {"MaskedPaths": []},
    {"ReadonlyPaths": []}, {"SecurityOpt": ["seccomp=unconfined"]}, {"SecurityOpt": ["no-new-privileges:false"]},
    {"VolumesFrom": ["theirs"]}, {"Runtime": "other"}, {"Sysctls": {"kernel.core_pattern": "|x"}}, {"NewThing": 1},
    {"Binds": ["/:/host"]}, {"Binds": ["/var/lib/agentctl/botany:/x"]}, {"Binds": ["/var/lib/agentctl/bot/../..:/x"]},
    {"Binds": ["/var/run/docker.sock:/s"]}, {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]},
    {"Mounts": [{"Type": "bind", "Target": "/x"}]}, {"Mounts": [{"Type": "npipe", "Source": "x", "Target": "/x"}]},
    {"Mounts": [{"Type": "volume", "Source": "v", "VolumeOptions": {"DriverConfig": {"Options": {"o": "bind"}}}}]},
    {"privileged": True}, {"PRIVILEGED": True}, {"Privileged": False, "privileged": True}, {"pr\u0131vileged": True},
]  # fmt: skip


@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_a_plain_container_of_the_project_is_let_through(rules, config):
    assert rules.verdict("POST", "/v1.41/containers/create?name=a", container(**config)) == ""


@pytest.mark.parametrize("config", RIGHTS, ids=str)
def test_a_container_with_rights_is_refused(rules, config):
    assert rules.verdict("POST", "/v1.41/containers/create?name=a", container(**config))


@pytest.mark.parametrize("more", [{"Privileged": True}, {"binds": ["/:/host"]}, {"MaskedPaths": []}, {"Cpuset": "0"}])
def test_rights_are_nowhere_beside_the_host_config_either(rules, more):
    plain = {"Image": "x", "Labels": OURS, "Volumes": {"/data": {}}, "HostConfig": {}, "Runtime": None}
    assert rules.verdict("POST", "/containers/create", json.dumps(plain).encode()) == ""
    del plain["HostConfig"]
    assert rules.verdict("POST", "/containers/create", json.dumps({**plain, **more}).encode())


def test_a_start_brings_nothing_with_it(rules):
    assert rules.verdict("POST", "/v1.23/containers/mine/start", b"{}") == ""
    assert rules.verdict("POST", "/v1.23/containers/mine/start", b'{"Privileged": true}')


def test_links_are_followed_before_a_folder_is_believed(rules, tmp_path):
    inside, outside = tmp_path / "home/code", tmp_path / "home/escape"
    assert rules.verdict("POST", "/containers/create", container(Binds=[f"{inside}:/x"])) == ""
    assert rules.verdict("POST", "/containers/create", container(Binds=[f"{outside}:/x"]))


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{", b'{"Labels": {"com.docker.compose.project": "bot"}} {"HostConfig": {"Privileged": true}}',
    b'{"Labels": {"com.docker.compose.project": "botany"}}',
    (b'{"HostConfig": {}, "hostConfig": {"Privileged": true}, '
     b'"Labels": {"com.docker.compose.project": "bot"}}'),
    json.dumps({"Labels": OURS, "HostConfig": {}, "\u017fx": 1}).encode(),
])  # fmt: skip
def test_an_unclear_or_foreign_body_is_refused(rules, body):
    for kind in ("containers", "networks", "volumes"):
        if kind == "containers" or b"ostConfig" not in body:
            assert rules.verdict("POST", f"/{kind}/create", body)


def test_volumes_and_networks_are_plain_and_of_the_project(rules):
    def new(**what) -> bytes:
        return json.dumps({"Labels": OURS, **what}).encode()

    assert rules.verdict("POST", "/volumes/create", new(Name="bot_data")) == ""
    assert rules.verdict("POST", "/volumes/create", new(DriverOpts={"o": "bind", "type": "none", "device": "/"}))
    assert rules.verdict("POST", "/networks/create", new(Name="bot_default", Driver="bridge")) == ""
    assert rules.verdict("POST", "/networks/create", new(Driver="macvlan", Options={"parent": "eth0"}))
    assert rules.verdict("POST", "/networks/x/connect", b'{"Container": "mine"}') == ""
    assert rules.verdict("POST", "/networks/x/connect", b'{"Container": "theirs"}')


def test_a_command_in_the_agents_container_has_its_rights_and_no_more(rules):
    plain = b'{"Cmd": ["true"], "User": "", "Privileged": false}'
    assert rules.verdict("POST", "/v1.41/containers/mine/exec", plain) == ""
    assert rules.verdict("POST", "/containers/mine/exec", b'{"Cmd": ["true"], "User": "root"}')
    assert rules.verdict("POST", "/containers/mine/exec", b'{"Cmd": ["true"], "privileged": true}')
    assert rules.verdict("POST", "/containers/theirs/exec", b'{"Cmd": ["true"]}')
