"""A candidate on trial in a container of its own: the same session as in real life, in another project, on copies.

Who asks for it may talk to the engine, so it does not run as the agent's user; what lies in folders of the agent's is
written as the agent's user, and plan, sockets and log are in a folder that is not the agent's.
"""

from __future__ import annotations

from .. import lean_json as json
from ..configuration import config
from ..errors import AgentctlError
from ..machine import command
from ..station import Station, find_identity
from .container import ContainerSession
from .seclusion import bring_state, take_state
from .trial import Teller, Trial, begin, candidate, hold

DOWN_SECONDS = 60.0


def main(name: str, plan: dict, teller: Teller) -> int:
    """Run one trial by its plan; return 0 if the candidate held."""
    station = None
    try:
        given = config.load_last_valid(plan["config"], plan["cache"])[0]
        user = find_identity(given.agent.user) if plan["scope"] == "system" else None
        command.call_as(user, _copy_state_as_agent, json.dumps(plan))
        station = open_station(name, plan, given)
        return hold(
            station,
            plan,
            teller,
            lambda ledger: ContainerTrial(station, ledger, begin(ledger, plan, image=plan["image"]), plan, teller),
        )
    finally:
        if station is not None:
            take_down(station, plan)


def _copy_state_as_agent(plan: str) -> str:
    given = json.loads(plan)
    take_state(given, [])
    bring_state(given, [])
    return ""


def open_station(name: str, plan: dict, given: config.Config) -> Station:
    """Open the candidate in a project of its own; inside its container everything has the paths it always has."""
    values = given.values
    own = {
        "compose.file": plan["file"], "compose.project": plan["project"],
        "compose.code": values["compose.code"] or values["agent.code"],
        "compose.state": values["compose.state"] or values["state.dir"],
    }  # fmt: skip
    return candidate(name, plan, config.Config({**values, **own}, given.given))


class ContainerTrial(Trial, ContainerSession):
    """A trial whose agent is in a container; its smoke check looks from inside."""

    def _start_smoke(self) -> command.Running:
        return self.start_probe(self.plan["smoke"], 1)

    def _tell_strays(self) -> None:
        """Who reviews the change sees what it changes."""

    def vouch(self) -> str:
        """A trial recovers nothing."""
        return ""


def take_down(station: Station, plan: dict) -> None:
    """Remove the trial's container and network; no volume and no image."""
    from ..compose.place import Place

    try:
        place = Place(station)
        place.prove_stopped()
        place.engine.compose(
            place.project,
            place.file,
            place.folder,
            "down",
            variables=place.variables(plan["image"]),
            limit_seconds=DOWN_SECONDS,
        )
    except AgentctlError as error:
        print(f"agentctl: what the trial leaves behind: {error.message}", flush=True)
