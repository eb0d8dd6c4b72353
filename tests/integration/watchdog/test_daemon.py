"""The watchdog beside a real agent on the runtime `direct`: heartbeats, history, offline, rollback, its own death."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from integration.watchdogs import Watchdog, ask
from integration.world import World, write
from kit import deadline

PATIENT = {"offline": {"after": "30s", "grace": "10s"}}
QUICK = {"offline": {"after": "6s", "grace": "4s"}}  # a busy machine's pause is not so long
FOR_HOURS = {"heartbeat": {"timeout": "1h", "longest_wait": "2h"}}


@pytest.fixture
def make(monkeypatch):
    made = []

    def build(settings=None, **more):
        made.append(Watchdog(World(monkeypatch, {**PATIENT, **(settings or {})}, **more)))
        world = made[-1].world.adopt()
        world.start()
        world.until_beating(1)
        return made[-1].start()

    yield build
    for watchdog in made:
        watchdog.kill()
        watchdog.world.end()


def kinds_of_periods(watchdog) -> list[str]:
    return [period["kind"] for period in watchdog.agent()["periods"]]


# --- heartbeats


def test_one_sign_of_life_serves_both(make):
    watchdog = make()
    seen = watchdog.until_state("well")
    assert seen["last_heartbeat_at"] > time.time() - 60
    launch = watchdog.world.launches()[-1]["id"]
    agent = watchdog.agent()
    assert (agent["launch_id"], agent["state"], agent["generation"]) == (launch, "well", 1)
    before = watchdog.world.live()["heartbeats"]
    for door in (watchdog.ask, watchdog.through_runner):
        answer = door("POST", "/health", {"launch_id": launch, "phase": "waiting"})
        assert answer.status == 200 and answer.json["deadline_seconds"] > 0
    watchdog.until(lambda: watchdog.world.live()["heartbeats"] > before, "the runner to have it too")


def test_a_heartbeat_of_another_launch_is_recorded_and_does_not_count(make):
    watchdog = make()
    count = watchdog.agent()["foreign_heartbeats"]
    answer = watchdog.ask("POST", "/health", {"launch_id": "20200101-000000-abcdef"})
    assert (answer.status, answer.json["code"]) == (409, "other-launch")
    assert watchdog.agent()["foreign_heartbeats"] == count + 1


def test_agents_of_other_machines_are_listed_and_their_times_kept(make):
    watchdog = make({"heartbeat": {"timeout": "8s"}, **QUICK})
    for launch in ("one", "one", "two"):
        assert watchdog.ask("POST", "/health", {"agent": "far", "launch_id": launch}).status == 200
    assert watchdog.ask("POST", "/health", {"agent": "far", "launch_id": "one"}).status == 409
    names = {agent["name"] for agent in watchdog.ask("GET", "/agents").json["agents"]}
    assert names == {"far", watchdog.world.name}

    def state():
        return watchdog.ask("GET", "/agents/far").json

    watchdog.until(lambda: [p["kind"] for p in state()["periods"]][-2:] == ["late", "offline"], "its silence noted")
    assert state()["state"] == "offline"
    assert watchdog.world.incidents() == []


# --- the conversation


def test_the_agents_file_is_carried_into_the_store_and_found_there(make):
    watchdog = make()
    path = watchdog.world.state / "history.jsonl"
    with open(path, "a") as file:
        file.write('{"id":"h1","at":"2026-01-01T00:00:00Z","role":"user","content":"A needle, please."}\n')
    watchdog.until(lambda: "h1" in watchdog.ids(), "the message")
    found = watchdog.through_runner("GET", "/history?q=needle").json["messages"]
    assert [m["id"] for m in found] == ["h1"]
    assert watchdog.ask("GET", "/history?after=nobody").status == 404


def test_messages_of_the_api_are_in_the_file_after_the_next_launch(make):
    watchdog = make()
    world = watchdog.world
    for door in (watchdog.ask, watchdog.through_runner):
        for _ in range(2):
            answer = door("POST", "/history", {"id": "api1", "role": "user", "content": "Remember me."})
            assert (answer.status, answer.json) == (200, {"acknowledged": ["api1"]})
    big = [{"role": "user", "content": "x" * 1000} for _ in range(200)]
    answer = watchdog.through_runner("POST", "/history", {"messages": big})
    assert answer.status == 200 and len(set(answer.json["acknowledged"])) == 200
    last = world.launches()[-1]["id"]
    watchdog.kill()  # the way back works without it
    ask(world.paths.api_socket_path, "POST", "/restart", {})
    world.until_beating(1, after=last)
    ids = [json.loads(line)["id"] for line in world.history()]
    assert ids.count("api1") == 1 and set(answer.json["acknowledged"]) <= set(ids)


@pytest.mark.parametrize("how", ["missing", "mangled", "cut"])
def test_the_best_copy_of_the_conversation_wins_on_a_relaunch(make, how):
    watchdog = make()
    world, path = watchdog.world, watchdog.world.state / "history.jsonl"
    given = [json.dumps({"id": f"n{n}", "role": "user", "content": "y" * 50}) + "\n" for n in range(500)]
    with open(path, "ab", buffering=0) as file:  # in one go: the agent writes, too
        file.write("".join(given).encode())
    watchdog.until(lambda: "n499" in watchdog.ids(), "the messages")
    world.stop()
    watchdog.kill()
    before = [line for line in world.history() if line.strip()]
    if how == "missing":
        path.unlink()
    elif how == "mangled":
        path.write_bytes(b"\0" * path.stat().st_size)
    else:
        os.truncate(path, path.stat().st_size // 2)
    world.start()
    world.until_beating(1, after=world.launches()[-1]["id"])
    now = world.history()
    known = {json.loads(line)["id"] for line in before}
    assert known - {json.loads(line)["id"] for line in now if line.startswith("{")} <= {json.loads(before[-1])["id"]}
    assert [json.loads(line)["id"] for line in now if '"n' in line][:500] == [f"n{n}" for n in range(500)]


def test_a_restart_brings_history_and_task_along(make):
    watchdog = make()
    world = watchdog.world
    last = world.launches()[-1]["id"]
    task = "# Current Task\nTidy up.\n\n## Conversation Context\n\n## Pending Actions\n- [ ] One\n\n## State\n\n"
    body = {"history": [{"id": "given1", "role": "user", "content": "Tidy up, please."}], "task": task}
    answer = watchdog.through_runner("POST", "/restart", body)
    assert (answer.status, answer.json["launch_id"]) == (202, last), answer.body
    world.until_beating(1, after=last)
    assert "given1" in {json.loads(line)["id"] for line in world.history()}
    assert (world.state / "current_task.md").read_text() == task
    assert world.incidents() == []
    assert watchdog.ask("POST", "/restart", {"task": "no task"}).status == 409


# --- offline


def let_go(watchdog):
    """Once the rollback is asked for, let what was stopped go on: the runner is ended the kind way, and says why."""
    watchdog.until(lambda: ": rollback: started for launch" in watchdog.log, "the rollback to be started")
    hang_all(watchdog.world, signal.SIGCONT)


def hang_all(world, number=signal.SIGSTOP):
    """Stop the agent, its runner and its supervisor's watch together: systemd sees nothing, and we must."""
    live = world.live()
    for pid in (live["pid"], live["runner_pid"]):
        os.kill(pid, number)


def test_the_loop_of_the_protocol(make):
    """Keep-alive, threshold, rollback with the history, recovered."""
    watchdog = make({**QUICK, **FOR_HOURS, "rollback": {"restarts": 0}, "agent": {"stop_grace": "2s"}})
    world = watchdog.world
    watchdog.until_state("well")
    launch = world.launches()[-1]["id"]
    hang_all(world)
    incident = world.until_outcome("recovered")
    assert incident["trigger"] == "offline" and "no heartbeat" in incident["reason"]
    assert "its runner does not answer" in incident["reason"]
    assert incident["launch"] == launch
    watchdog.until_state("well")
    watchdog.until(lambda: "recovered" in watchdog.events(), "it to be noted")
    events = watchdog.events()
    order = [events.index(kind) for kind in ("well", "grace", "offline", "rollback", "recovered")]
    assert order == sorted(order)
    kinds = kinds_of_periods(watchdog)
    assert {"up", "late", "offline"} <= set(kinds)


def test_offline_spends_the_try_of_a_candidate_and_goes_back(make):
    watchdog = make({**QUICK, **FOR_HOURS, "probation": {"tries": 1, "duration": "1h"}})
    world = watchdog.world
    last = world.launches()[-1]["id"]
    world.commit({"note.txt": "new"})
    watchdog.ask("POST", "/restart", {})
    world.until_beating(2, after=last)
    watchdog.until_state("well")
    hang_all(world)
    let_go(watchdog)
    incident = world.until_outcome("recovered")
    assert (world.launches()[1]["end"], world.launches()[1]["trigger"]) == ("failed", "offline")
    assert (incident["generation_from"], incident["generation_to"]) == (2, 1)
    assert world.status_of(2) == "condemned" and world.head() == world.first


def test_a_pause_stops_all_action_and_has_an_end(make):
    watchdog = make({**QUICK, **FOR_HOURS})
    world = watchdog.world
    watchdog.until_state("well")
    assert watchdog.ask("POST", "/pause", {"for": "1h"}).json["paused_until_at"] > time.time()
    hang_all(world)
    watchdog.until(lambda: "offline, but paused" in watchdog.log, "it to be noted")
    assert world.incidents() == []
    watchdog.ask("POST", "/pause", {"for": "1s"})
    let_go(watchdog)
    world.until_outcome("recovered")


def test_a_stop_by_hand_is_not_offline(make):
    watchdog = make(QUICK)
    world = watchdog.world
    watchdog.until_state("well")
    assert world.stop() == 0
    seen = watchdog.until_state("stopped")
    assert seen["reason"] == "stopped by hand"
    watchdog.until(lambda: watchdog.status()["at"] > seen["at"] + 12, "it to look for longer than it has patience")
    assert watchdog.status()["state"] == "stopped" and world.incidents() == []


# --- the watchdog itself


def test_stopped_for_longer_than_the_limit_it_blames_nobody(make):
    watchdog = make(QUICK)
    watchdog.until_state("well")
    os.kill(watchdog.process.pid, signal.SIGSTOP)
    time.sleep(12)  # longer than its patience
    os.kill(watchdog.process.pid, signal.SIGCONT)
    watchdog.until(lambda: "unknown" in kinds_of_periods(watchdog), "the gap to be noted")
    watchdog.until_state("well")
    assert "offline" not in watchdog.events() and watchdog.world.incidents() == []


def test_killed_and_started_again_its_absence_is_unknown(make):
    watchdog = make(QUICK)
    watchdog.until_state("well")
    watchdog.until(lambda: "up" in kinds_of_periods(watchdog), "it to be on record")
    watchdog.kill()
    time.sleep(1)
    watchdog.start().until_state("well")
    watchdog.until(lambda: "unknown" in kinds_of_periods(watchdog), "the gap to be noted")
    periods = watchdog.agent()["periods"]
    assert "offline" not in [p["kind"] for p in periods]
    assert all(p["ended_at"] for p in periods[:-1])


def test_with_the_watchdog_dead_the_rescue_path_works(make):
    watchdog = make({"probation": {"tries": 1}})
    world = watchdog.world
    watchdog.kill()
    answer = watchdog.through_runner("GET", "/history")
    assert (answer.status, answer.json["code"]) == (503, "no-watchdog")
    assert watchdog.through_runner("GET", "/health").status == 200
    last = world.launches()[-1]["id"]
    world.mode("crash")
    assert watchdog.through_runner("POST", "/restart", {}).status == 202
    incident = world.until_outcome("recovered")
    assert incident["trigger"] == "crash-at-start"
    world.until_beating(1, after=last)


def test_a_hung_watchdog_holds_nobody_up(make):
    watchdog = make()
    world = watchdog.world
    os.kill(watchdog.process.pid, signal.SIGSTOP)
    try:
        for _ in range(600):  # the door fills up, then it is refused
            door = socket.socket(socket.AF_UNIX)
            door.connect(world.paths.api_socket_path)
            door.sendall(b"GET /history HTTP/1.1\r\nHost: x\r\n\r\n")
            door.close()
        answer = watchdog.through_runner("GET", "/health")
        assert answer.status == 200
        last = world.launches()[-1]["id"]
        assert watchdog.through_runner("POST", "/restart", {}).status == 202
        world.until_beating(1, after=last)
    finally:
        os.kill(watchdog.process.pid, signal.SIGCONT)


def test_a_second_watchdog_refuses(make):
    watchdog = make()
    second = Watchdog(watchdog.world)
    second.start(is_ready=False)
    assert deadline.wait(second.process, "the second one", 60, second.log_path) == 4
    assert "is at work already" in watchdog.log
    assert watchdog.ask("GET", "/health").status == 200


def test_asked_to_end_it_ends(make):
    watchdog = make()
    assert watchdog.kill(signal.SIGTERM) == 0


@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_a_broken_store_is_renewed_from_the_agents_file_and_heartbeats_go_on(make, how):
    watchdog = make()
    world = watchdog.world
    write(world.state, {"extra.txt": "x"})
    watchdog.until(lambda: len(watchdog.ids()) > 3, "some messages")
    known = set(watchdog.ids())
    store = Path(world.paths.store_path)
    if how == "deleted":
        for path in store.parent.glob("watchdog.db*"):
            path.unlink()
    else:
        watchdog.kill()
        store.write_bytes(os.urandom(store.stat().st_size))
        for path in store.parent.glob("watchdog.db-*"):
            path.unlink()
        watchdog.start()
    assert watchdog.ask("POST", "/history", {"id": "after", "role": "user", "content": "on"}).status == 200
    watchdog.until(lambda: known | {"after"} <= set(watchdog.ids()), "everything to be there again")
    assert watchdog.until_state("well")
    kept = [p.name for p in store.parent.glob("watchdog.db.broken-*")]
    assert bool(kept) == (how == "damaged")
    assert watchdog.ask("GET", "/health").json["ok"] is True
