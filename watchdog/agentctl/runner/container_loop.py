"""One launch while it lives, in a container: the same judge, the same doors, the same end as in tmux.

The container's entry (`entrypoint`) runs the agent in tmux and passes its signs of life on to our API; what it
prints is the container's output, which is followed here. Whether the container lives is the engine's word, not the
entry's.
"""

from __future__ import annotations

import math
import os
import select
import time

from ..core import durable, fast_json
from ..core.errors import AgentctlError
from ..host.command import SIGKILL, Running
from ..ledger import models
from ..runtime.agent_env import build_environment
from ..runtime.container import container_rules, images
from ..runtime.container.attached import InnerTmux
from ..runtime.container.compose_project import ComposeProject, pid_here, strays
from ..runtime.container.docker import RUNNING, STOP_MARGIN_SECONDS, NotThere
from ..runtime.container.entrypoint import ABORT_SIGNAL
from ..runtime.tmux import Pane
from . import launch_loop
from .launch_result import LaunchResult, judge_exit
from .signs_of_life import make_probe

ENGINE_AGAIN_SECONDS = 1.0
ENGINE_PATIENCE_SECONDS = 60.0
LOOK_TWICE_SECONDS = 0.5
OF_SIGTERM = (0, 143)  # how an agent ends that was asked to


class ContainerLoop(launch_loop.LaunchLoop):
    """Runs one launch to its end in the agent's container."""

    container = image = ""
    has_ended = False  # by the engine's word
    was_engine_away = is_away_told = has_looked_twice = False
    waiting: Running | None = None
    following: Running | None = None

    # -- the start ------------------------------------------------------------------------------------------

    def _start_agent(self) -> None:
        self.place = ComposeProject(self.context, patience_seconds=ENGINE_PATIENCE_SECONDS)
        self.place.engine.on_wait = self._go_on_waiting
        self.place.prove_stopped()
        self.place.engine.patience_seconds = 0.0  # from here on the loop asks again
        self._tell_strays()
        self.image = self._find_image()
        env = self.launch_env = environment(self.context, self.launch)
        leave(self.context, self.launch.id, self._choose_command(env), env)
        number, self.began_at = self.launch.generation.number, time.time()
        self.container = self.place.up(self.image, number)
        self._check_image(facts := self.place.engine.inspect(self.container))
        self.pane = Pane(pid_here(facts), 0, "")
        self.tmux = InnerTmux(self.place.engine, self.container)
        self._follow()
        self._await_end()
        self.status.write(pid=self.pane.pane_pid, phase="starting", container=self.container, image=self.image)
        self.notifier.status(f"generation {number}: starting")
        self.journal.info(
            f"agentctl: launch {self.launch.id}, generation {number} "
            f"({self.launch.generation.status}, {self.launch.generation.commit_id[:12]}), "
            f"container {self.container[:12]} of image {self.image.removeprefix('sha256:')[:12]}"
        )
        self.probe = make_probe(self.context, self)
        self.jobs.after_launch()

    def _tell_strays(self) -> None:
        """What the agent changed of the admin's files is told when it is new, and used by nobody."""
        found = strays(self.context)
        if found != (self.ledger.meta("strays") or ""):
            with self.ledger.transaction():
                self.ledger.set_meta("strays", found or None)
                if found:
                    self.ledger.event("strays", found)
            if found:
                self.journal.warning(f"agentctl: {found}")

    def _find_image(self) -> str:
        """A candidate's image is built here if nobody has; one of a good generation is only ever brought back."""
        generation = self.ledger.generation(self.launch.generation.number)
        if generation is None:  # a trial: who asked for it has chosen the image
            return self.launch.generation.image
        is_recovery = generation.status != "candidate"
        try:
            return images.ensure(
                self.place,
                self.ledger,
                generation,
                is_recovery=is_recovery,
                say=self.journal.info,
                on_idle=self._go_on_waiting,
            )
        except AgentctlError as error:
            if not self._is_asked_to_stop():
                raise
            is_abort = launch_loop.signal.SIGABRT in os.read(self.wakeup, 64)
            kind, what = (BuiltTooLong, "not ready in time:") if is_abort else (StoppedEarly, "stopped")
            raise kind(f"{what} while its image was built") from error

    def _go_on_waiting(self) -> bool:
        """While a build goes on, or the engine is restarted, the time to become ready begins anew; true: give up."""
        self.notifier.extend(int(self.context.config.agent.ready_timeout * 1e6))
        return self._is_asked_to_stop()

    def _is_asked_to_stop(self) -> bool:
        return bool(select.select([self.wakeup], [], [], 0)[0])

    def _check_image(self, facts: dict) -> None:
        if facts["Image"] != self.image:
            raise AgentctlError(
                f"the container runs image {facts['Image'][:19]}, wanted is {self.image[:19]}",
                f"the service in {self.place.file} has to say: image: ${{AGENT_IMAGE}}",
            )

    def _follow(self) -> None:
        """Have the container's output come in as if it were a pane's."""
        fifo = os.open(self.context.paths.pane_fifo_path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            words = ("container", "logs", "--follow", "--since", f"{self.began_at:.6f}", self.container)
            self.following = self.place.engine.start(*words, stdout_fd=fifo, stderr_fd=fifo)
        finally:
            os.close(fifo)
        if not self.feed.is_open:
            self.loop.watch(self.feed.fd, self.feed.read)

    # -- the end --------------------------------------------------------------------------------------------

    def _await_end(self) -> None:
        self.waiting = self.place.engine.start("container", "wait", self.container, is_mute=True)
        self.wait_ended = os.pidfd_open(self.waiting.pid)
        self.loop.watch(self.wait_ended, self._on_wait_end)

    def _on_wait_end(self) -> None:
        """`docker wait` ends well with the container, badly with the engine."""
        running, self.waiting = self.waiting, None
        self.loop.forget(self.wait_ended)
        os.close(self.wait_ended)
        self.was_engine_away |= os.waitpid(running.pid, 0)[1] != 0
        self._look_at_container()

    def _forget_wait(self) -> None:
        if self.waiting is not None:
            self.loop.forget(self.wait_ended)
            os.close(self.wait_ended)
            self.waiting = self.waiting.kill()

    def _look_at_container(self) -> None:
        """Ask the engine; one that does not answer says nothing of the agent, whose heartbeats may go on."""
        try:
            facts = self.place.engine.inspect(self.container)
        except NotThere:
            facts = {"State": {"Status": "dead"}}
        except AgentctlError as error:
            if not self.is_away_told:
                self.journal.warning(f"agentctl: {error.message}")
            self.is_away_told = self.was_engine_away = True  # also where `docker wait` was still told of the end
            self.loop.set_timer("engine", ENGINE_AGAIN_SECONDS, self._look_at_container)
            return
        if facts["State"]["Status"] in ("removing", "dead"):  # a removal kills it first, and takes its time
            self.has_ended, self.was_engine_away = True, False
            self.ending = LaunchResult(models.FAILED, "crash", "its container was removed")
            return
        if facts["State"]["Status"] in RUNNING:
            self.was_engine_away = self.is_away_told = self.has_looked_twice = False
            self._end_following()
            self.began_at = time.time()
            self._follow()
            self._await_end()
            return
        if facts["State"]["ExitCode"] in OF_SIGTERM and not self.has_looked_twice:
            self.has_looked_twice = True  # an engine that ends asks its containers first, and still answers
            self.loop.set_timer("engine", LOOK_TWICE_SECONDS, self._look_at_container)
            return
        self._tell_end(facts["State"])

    def _tell_end(self, state: dict) -> None:
        self.has_ended = True
        status, number = container_rules.exit_of(state["ExitCode"])
        lived = time.time() - self.launch.started_at
        self._let_output_come()
        self.ending = judge_exit(status, number, is_ready=self.life.ready_at is not None, lived_seconds=lived)
        self.ending = self.wedge.ended(self.ending) if self.wedge else self.ending
        if state.get("OOMKilled"):
            self.ending.reason += "; the container was out of memory"
        if state.get("Error"):
            self.ending.reason += f"; the engine says: {state['Error'][:300]}"

    def stop(self) -> None:
        """End the agent the kind way: the engine's SIGTERM reaches the entry, which passes it on."""
        self.notifier.stopping()
        self.journal.info("agentctl: stopping: asking the agent to save")
        self.loop.cancel("engine")
        began = time.monotonic()
        grace = self.context.config.agent.stop_grace
        running = self.place.engine.start("container", "stop", "--time", str(math.ceil(grace)), self.container)
        in_time = self._reap(running, grace + STOP_MARGIN_SECONDS)
        killed = self._kill_agent()
        took = time.monotonic() - began
        in_time = in_time and not killed
        reason = f"stopped, saved and ended within {took:.1f}s" if in_time else f"stopped; killed after {took:.1f}s"
        self.ending = LaunchResult(models.STOPPED, "stop", reason)
        self.ending.by_agent = self.by_agent

    def ask_to_end(self) -> None:
        """SIGTERM by the engine, which the entry passes on: by number a process inside may be another's here."""
        try:
            self.place.engine.run("container", "kill", "--signal", "TERM", self.container)
        except AgentctlError as error:
            self.journal.warning(f"agentctl: SIGTERM did not reach the container: {error.message}")

    def _abort_agent(self) -> None:
        """Have the container's entry send SIGABRT: the agent tells every stack, then it is ended."""
        running = self.place.engine.start("container", "kill", "--signal", ABORT_SIGNAL, self.container)
        self._reap(running, STOP_MARGIN_SECONDS)
        if self.waiting is not None:
            self._serve_until(self.wait_ended, launch_loop.ABORT_GRACE_SECONDS + 1.0)
        self._let_output_come()
        self._kill_agent()

    def _reap(self, running: Running, limit_seconds: float) -> bool:
        """Wait for a docker command while the agent's last words are read; False if it had to be killed."""
        for fd in (running.stdout, running.stderr):
            os.close(fd)
        ended = os.pidfd_open(running.pid)
        in_time = self._serve_until(ended, limit_seconds)
        os.close(ended)
        running.kill()
        return in_time

    def _serve_until(self, ended: int, limit_seconds: float) -> bool:
        deadline = time.monotonic() + limit_seconds
        while True:
            watched = [ended, self.receiver, *([self.feed.fd] if self.feed.is_open else [])]
            ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
            if ended in ready:
                return True
            if not ready:
                return False
            self.feed.read()
            self.receiver.receive()

    def _let_output_come(self) -> None:
        """The follower ends with the container, when all was handed over."""
        if self.following is None:
            return
        ended = os.pidfd_open(self.following.pid)
        self._serve_until(ended, launch_loop.ABORT_GRACE_SECONDS)
        os.close(ended)

    def _kill_agent(self) -> bool:
        """End what is left; tell whether the agent had to be killed."""
        try:
            state = self.place.engine.inspect(self.container)["State"]
            self.place.prove_stopped()
        except AgentctlError as error:
            self.journal.warning(f"agentctl: the container could not be looked at: {error.message}")
            return True
        self.has_ended = True
        return state["Status"] in RUNNING or state["ExitCode"] == 128 + SIGKILL

    def _end_following(self) -> None:
        if self.following is not None:
            self.following = self.following.kill()

    def _close(self) -> None:
        self._forget_wait()
        if self.container:
            self._let_output_come()
            if not self.has_ended:
                self._kill_agent()
        self._end_following()
        if hasattr(self, "feed"):
            self.feed.drain()
        if hasattr(self, "jobs"):
            self.jobs.end()

    def _complete(self, ending: LaunchResult) -> LaunchResult:
        """An end that came with the engine's is not the agent's fault."""
        if self.was_engine_away and ending.end in (models.FAILED, models.ASKED):  # at its SIGTERM the agent ends with 0
            ending.end, ending.trigger = models.FAILED, models.ENGINE_AWAY
            ending.reason = f"Docker Engine was away: {ending.reason}"
        return super()._complete(ending)

    # -- what others ask ------------------------------------------------------------------------------------

    def vouch(self) -> str:
        """Return '' if the image that runs is the wanted one, else what is wrong: then nothing is recovered."""
        try:
            facts = self.place.engine.inspect(self.container)
        except AgentctlError as error:
            return error.message
        if facts["Image"] == self.image and facts["State"]["Status"] == "running":
            return ""
        return (
            f"container {self.container[:12]} is {facts['State']['Status']} of image {facts['Image'][:19]}, "
            f"wanted is {self.image[:19]}"
        )

    def running_facts(self) -> dict:
        """What an incident is told about what runs after it."""
        return {"container": self.container, "image": self.image}

    def start_probe(self, argv: list[str], null: int) -> Running:
        """A probe looks from inside."""
        told = {name: self.launch_env[name] for name in UNDER if name in self.launch_env}
        words = self.place.engine.words_inside(self.container, argv, told["AGENT_CODE_DIR"], told)
        return self.place.engine.start(*words, stdout_fd=null, stderr_fd=null)


# -- container launch ------------------------------------------------------------------------------
# What a container's entry is given: the launch as a file, the contract's variables as they are inside.


OF_THE_HOST = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
UNDER = ("AGENT_CODE_DIR", "AGENT_STATE_DIR", "AGENT_TASK_FILE", "AGENT_HISTORY_FILE", "AGENT_BRIEF_FILE")


class StoppedEarly(AgentctlError):
    """A stop came while the image was built: no failure."""

    end, trigger = models.STOPPED, "stop"


class BuiltTooLong(AgentctlError):
    """Whoever watches us lost patience while the image was built: a failure."""

    trigger = "not-ready"


def environment(context, launch) -> dict[str, str]:
    """Return the contract as it is inside; what the image says of its own world stays as it is there."""
    settings, given = context.config.compose, context.config.agent.environment
    env = {
        name: value
        for name, value in build_environment(context, launch, {}).items()
        if name not in OF_THE_HOST or name in given
    }
    moves = [(context.state_dir, settings.state), (context.code_dir, settings.code)]
    return {**env, **container_rules.moved_inside({name: env[name] for name in UNDER if name in env}, moves)}


def leave(context, launch_id: str, argv: list[str], env: dict[str, str]) -> None:
    """Write down what is to be started, where the agent's user alone reads it."""
    settings = context.config
    facts = {
        "launch_id": launch_id,
        "argv": argv,
        "env": env,
        "cwd": env["AGENT_CODE_DIR"],
        "stop_grace": settings.agent.stop_grace,
        "timeout_seconds": settings.heartbeat.timeout,
        "api": context.paths.api_socket_path,
    }
    durable.write(context.paths.launch_path, fast_json.dumps(facts).encode(), 0o600, context.owner)
