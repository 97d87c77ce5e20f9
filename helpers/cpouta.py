"""Chapter 02: a VM in CPouta, CSC's OpenStack cloud: planned with its cost, made, paused, taken away.

Sources: https://docs.csc.fi/cloud/pouta/ and https://docs.openstack.org/openstacksdk/latest/user/.
"""

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import cpouta_rates, display, ssh
from helpers.cpouta_cloud import again, connect
from helpers.cpouta_look import PROPERTY, RULE, Found, Inventory, Row, Wanted
from helpers.cpouta_ssh import Place, own_address, pin_host_key
from helpers.errors import TutorialError
from helpers.processes import write_atomically
from helpers.settings import settings
from helpers.undo import Leftover

if TYPE_CHECKING:
    from openstack.connection import Connection

MOUNT_POINT = "/media/volume"
_SERVER_SECONDS, _VOLUME_SECONDS, _ADDRESS_SECONDS = 600.0, 360.0, 120.0
_POLL_SECONDS = 0.5
_SHELVED = ("SHELVED", "SHELVED_OFFLOADED")
_NOT_RUNNING = (*_SHELVED, "SHUTOFF")
_STEPS = ("key pair", "security group", "server", "volume", "floating IP")


@dataclass(frozen=True)
class Cloud:
    """A cloud that a run of the chapter uses.

    Attributes:
        connection: The way to it.
        name: Its name in clouds.yaml.
        home: The home folder whose SSH configuration gets the VM.
        folder: Where is noted what was made in it; nothing is noted without one.
        address: The reader's address, where it can't be looked up.
        mount_point: Where the volume is mounted in the VM.
        free: Whether nothing that is made there costs anything: it is the stand-in, and its servers don't boot.
    """

    connection: "Connection"
    name: str
    home: Path
    folder: Path | None = None
    address: str = ""
    mount_point: str = MOUNT_POINT
    free: bool = False

    def vm(self, wanted: Wanted) -> "Vm":
        """Give the tutorial's VM in it, made or not."""
        key = self.home / ".ssh" / Path(ssh.KEY).name
        wanted = replace(wanted, address=wanted.address or self.address)
        return Vm(self, wanted, Place(self.home, wanted.alias, key))


class Vm(Inventory):
    """The tutorial's VM in a cloud, with all that belongs to it.

    Args:
        cloud: The cloud.
        wanted: What is wanted.
        place: The SSH configuration that it goes into.
    """

    def __init__(self, cloud: Cloud, wanted: Wanted, place: Place) -> None:
        super().__init__(cloud.connection, wanted)
        self.place, self.home = place, cloud
        self._record = cloud.folder / f"{self.name}.json" if cloud.folder else None

    def like(self, wanted: Wanted) -> "Vm":
        """Give another VM of the same cloud."""
        return self.home.vm(wanted)

    def create(self) -> list[str]:
        """Have the VM with all that belongs to it; what is there is used as it is.

        Returns:
            What was made or changed now; nothing in a second run.

        Raises:
            TutorialError: The quota does not allow it, the cloud has no place for it, or something of it failed. What
                was made until then is used by the next run, and `clean` takes it away.
        """
        address = own_address(self.wanted.address)
        image, (inside, outside), flavor = self.image(), self.networks(), self.flavor()
        self._afford(flavor)
        self._note_down(made=True)
        made: list[str] = []
        with self._progress(made) as note:
            self._have_key(note)
            group = self._have_group(note, address)
            server = self._have_server(note, image, flavor, inside, group)
            self._have_volume(note, server)
            ip = self._have_ip(note, server, inside, outside)
        if self.place.write_host(ip.floating_ip_address):
            made.append(f"Host {self.place.alias}")
        return made

    @contextmanager
    def _progress(self, made: list[str]) -> Iterator[Callable[..., None]]:
        """Show a row a step that follows the cloud; what is reported as made is noted."""
        states: dict[str, str] = dict.fromkeys(_STEPS, "waits")

        def read() -> list[Row]:
            return [{"step": step, "state": state} for step, state in states.items()]

        with display.live_table(read, title=f"Create {self.name}", interval=_POLL_SECONDS) as draw:

            def note(step: str, state: str, new: bool = False) -> None:
                states[step] = state
                if new:
                    made.append(step)
                draw()

            yield note

    def _afford(self, flavor: Any) -> None:
        """Look at the quota before anything is made: half a VM costs, too."""
        short = [row for row in self.quota() if row["enough"] == "no"]
        if not short:
            return
        project = self.cloud.current_project.name
        if all(row["resource"] == "floating IPs" for row in short):
            raise TutorialError(
                "There is no free floating IP",
                f"the project may have {short[0]['limit']}, and each is in use or somebody else's",
                "release one that nobody needs (openstack floating ip list), or ask for more quota",
            )
        needs = ", ".join(f"{r['resource']}: {r['needed']} needed, {r['used']} of {r['limit']} used" for r in short)
        raise TutorialError(
            f"The project's quota does not allow {flavor.name}",
            needs,
            "choose a smaller flavor, or ask CSC's service desk",
            output=cpouta_rates.quota_request(flavor.name, short, project),
        )

    def _have_key(self, note: Callable[..., None]) -> None:
        public = ssh.public_key(ssh.make_key(self.place.key))

        def step() -> bool:
            there = self.cloud.compute.find_keypair(self.name)
            if there and not _same_key(there, public):
                raise TutorialError(
                    f"The cloud has another key under the name {self.name}",
                    f"it is not {self.place.key}.pub: made on another machine, or the file was replaced",
                    f"use that key, or delete it there: openstack keypair delete {self.name}",
                )
            if not there:
                self.cloud.compute.create_keypair(name=self.name, public_key=public)
            return not there

        note("key pair", "there", again("register the key", step))

    def _have_group(self, note: Callable[..., None], address: str) -> Any:
        def step() -> tuple[Any, bool]:
            there = next(self.cloud.network.security_groups(description=self.mark), None)
            new = there is None
            return there or self.cloud.network.create_security_group(name=self.name, description=self.mark), new

        group, new = again("make the security group", step)
        old, now = self._admit(group, address)
        note("security group", f"SSH from {now}", new or old != now)
        return group

    def _admit(self, group: Any, address: str) -> tuple[str, str]:
        """Have our one rule let SSH in from this address only: the new rule first, then the old one goes."""
        prefix = f"{address}/32"

        def step() -> str:
            rules = self._ssh_rules(self.cloud.network.get_security_group(group.id))
            old = [r for r in rules if r.get("remote_ip_prefix") != prefix]
            if len(old) == len(rules):
                self.cloud.network.create_security_group_rule(
                    security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol="tcp",
                    port_range_min=22, port_range_max=22, remote_ip_prefix=prefix, description=RULE,
                )  # fmt: skip
            for rule in old:
                self.cloud.network.delete_security_group_rule(rule["id"])
            return ", ".join(r.get("remote_ip_prefix") or "everywhere" for r in old) or (prefix if rules else "nowhere")

        return again("change the SSH rule", step), prefix

    def _have_server(self, note: Callable[..., None], image: Any, flavor: Any, inside: Any, group: Any) -> Any:
        def step() -> tuple[Any, bool]:
            there = self._look().server
            if there and there.status == "ERROR" and not there.launched_at:  # it never ran: nothing of it is lost
                self.cloud.compute.delete_server(there)
                self.cloud.compute.wait_for_delete(there, interval=_POLL_SECONDS, wait=_ADDRESS_SECONDS)
                there = None
            made = there or self.cloud.compute.create_server(
                name=self.name, flavor_id=flavor.id, image_id=image.id, networks=[{"uuid": inside.id}],
                security_groups=[{"name": group.id}], key_name=self.name, metadata={PROPERTY: self.name},
            )  # fmt: skip
            return made, there is None

        server, new = again("make the server", step)
        note("server", "BUILD" if new else server.status, new)
        server = self._server_gets(server, ("ACTIVE", *_NOT_RUNNING), note)
        if server.status != "ACTIVE":
            raise TutorialError(
                f"The server is {server.status}",
                "it was paused" if server.status in _SHELVED else "it was shut off, and is billed all the same",
                "vm.resume()",
            )
        return server

    def _server_gets(self, server: Any, states: Sequence[str], note: Callable[..., None]) -> Any:
        """Wait until a server is in one of some states; ERROR ends that."""

        def read() -> Any:
            now = self.cloud.compute.get_server(server.id)
            if now.status == "ERROR":
                raise _server_failed(now)
            return now

        def done(now: Any) -> bool:
            return now.status in states and not now.task_state

        return self._wait("server", read, done, _SERVER_SECONDS, note)

    def _wait(
        self, what: str, read: Callable[[], Any], done: Callable[[Any], bool], seconds: float, note: Callable[..., None]
    ) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            now = again(f"read the {what}'s state", read)
            note(what, now.status)
            if done(now):
                return now
            if time.monotonic() > deadline:
                raise TutorialError(
                    f"The {what} is still {now.status}",
                    f"after {seconds:g} s",
                    "run the cell again: it goes on waiting. clean takes away what is there",
                )
            time.sleep(_POLL_SECONDS)

    def _have_volume(self, note: Callable[..., None], server: Any) -> None:
        storage = self.cloud.block_storage

        def step() -> tuple[Any, bool]:
            there = self._look().volume
            if there:
                return there, False
            known = [t.name for t in storage.types()]
            kind = {"volume_type": "standard"} if "standard" in known else {}
            size, about = self.wanted.volume_gib, {PROPERTY: self.name}
            return storage.create_volume(name=self.name, size=size, metadata=about, **kind), True

        volume, new = again("make the volume", step)
        settled = ("available", "in-use", "reserved", "error")
        read = partial(storage.get_volume, volume.id)
        volume = self._wait("volume", read, lambda v: (v.status or "").startswith(settled), _VOLUME_SECONDS, note)
        holders = [a["server_id"] for a in volume.attachments or [] if a.get("server_id")]
        if holders == [server.id]:
            note("volume", volume.status, new)
            return
        if holders or volume.status != "available":
            raise TutorialError(
                "The volume can't be attached",
                f"another server has it: {', '.join(holders)}" if holders else f"it is in the state {volume.status}",
                "detach it there first: it is never taken away"
                if holders
                else f"openstack volume show {self.name} tells more; a new, empty one: vm.clean(delete_volume=True)",
            )
        self._attach(volume, server)
        self._wait("volume", read, lambda v: v.status == "in-use", _VOLUME_SECONDS, note)
        note("volume", "in-use", True)

    def _attach(self, volume: Any, server: Any) -> None:
        def step() -> None:
            if self.cloud.block_storage.get_volume(volume.id).status == "available":
                self.cloud.compute.create_volume_attachment(server, volume_id=volume.id)

        again("attach the volume", step)

    def _have_ip(self, note: Callable[..., None], server: Any, inside: Any, outside: Any) -> Any:
        network = self.cloud.network

        def step() -> tuple[Any, bool]:
            ports = self._ports(server)
            ip = self._our_ip(ports)
            if ip and ip.port_id:
                return ip, False
            ip = ip or network.create_ip(floating_network_id=outside.id, description=self.mark)
            if network.get_ip(ip.id).port_id:  # Neutron would take it from whoever has it
                raise TutorialError("The floating IP is in use by now", "", "run the cell again")
            port, address = _way_in(ports, inside)
            return network.update_ip(ip, port_id=port.id, fixed_ip_address=address), True

        ip, new = again("give the server a floating IP", step)
        note("floating IP", ip.status, new)
        read = partial(network.get_ip, ip.id)
        return self._wait("floating IP", read, lambda i: i.status in ("ACTIVE", None), _ADDRESS_SECONDS, note)

    def pin_host_key(self) -> str:
        """Pin the host key at the first connection; see `cpouta_ssh.pin_host_key`."""
        found = self._there()
        console = again("read the console", partial(self.cloud.compute.get_server_console_output, found.server))
        address = found.ip.floating_ip_address
        return pin_host_key(self.place.known_hosts, found.server.id, address, (console or {}).get("output") or "")

    def refresh_ssh_rule(self, address: str = "") -> tuple[str, str]:
        """Let SSH in from the address that you have now, instead of the one that you had.

        Args:
            address: The address, given by hand; empty asks look-up services.

        Returns:
            The old address and the new one, as networks; the same where nothing has changed.

        Raises:
            TutorialError: There is no security group of the tutorial's, or no address was found.
        """
        group = self.look().group
        if not group:
            raise TutorialError("There is no security group of the tutorial's", "", "make the VM first: vm.create()")
        return self._admit(group, own_address(address))

    def volume_id(self) -> str:
        """Give the volume's id; the VM sees its first 20 characters as the disk's serial number."""
        return str(self._there().volume.id)

    def _there(self) -> Found:
        found = self.look()
        if not (found.server and found.volume and found.ip):
            raise TutorialError(f"{self.name} is not complete", "", "make it first: vm.create()")
        return found

    def pause(self) -> str:
        """Shelve the server: its disk is kept and its place given back, so that it isn't billed. Quota stays used.

        Returns:
            Its state.
        """
        return self._switch("shelve the server", "shelve_server", ("ACTIVE", "SHUTOFF"), _SHELVED)

    def resume(self) -> str:
        """Bring the server back from where it was shelved or shut off.

        Returns:
            Its state.
        """
        if self._there().server.status == "SHUTOFF":
            return self._switch("start the server", "start_server", ("SHUTOFF",), ("ACTIVE",))
        return self._switch("unshelve the server", "unshelve_server", _SHELVED, ("ACTIVE",))

    def _switch(self, what: str, call: str, states: Sequence[str], goal: Sequence[str]) -> str:
        server = self._there().server

        def step() -> None:
            if self.cloud.compute.get_server(server.id).status in states:
                getattr(self.cloud.compute, call)(server.id)

        with display.progress(what.capitalize()) as report:

            def note(_: str, state: str) -> None:
                report(0.5, state)

            self._server_gets(server, (*states, *goal), note)  # it may be on its way still
            again(what, step)
            return str(self._server_gets(server, goal, note).status)

    def leavings(self, delete_volume: bool = False) -> list[Row]:
        """List what `clean` would take away, and what it would leave."""
        found = self.look()
        rows = [row for row in self.rows(found) if row["state"] != "missing"]
        return [
            {
                "resource": row["resource"],
                "name": row["name"],
                "what would happen": "stays, with its data"
                if row["resource"] == "volume" and not delete_volume
                else "deleted with all its data"
                if row["resource"] in ("server", "volume")
                else "released"
                if row["resource"] == "floating IP" and self._is_ours(found.ip)
                else "stays: it is not the tutorial's"
                if row["resource"] == "floating IP"
                else "deleted",
            }
            for row in rows
        ]

    def clean(self, delete_volume: bool = False) -> None:
        """Take away what the tutorial made; doing so twice does no harm.

        Args:
            delete_volume: The volume, too, with all data on it.

        Raises:
            TutorialError: Something could not be taken away; run it again.
        """
        compute, network, storage = self.cloud.compute, self.cloud.network, self.cloud.block_storage
        found = self.look()

        def quiet(what: str, state: str) -> None:
            report(0.5, f"{what}: {state}")

        with display.progress(f"Clean {self.name}") as report:
            if self._is_ours(found.ip):
                again("release the floating IP", lambda: network.delete_ip(found.ip.id))
            for server in again("list the servers", self._servers):
                again("delete the server", partial(compute.delete_server, server.id))
                gone = partial(self._gone, compute.servers, server.id)
                self._wait("server", gone, lambda now: now.status == "gone", _SERVER_SECONDS, quiet)
            if found.volume and delete_volume:
                read = partial(storage.get_volume, found.volume.id)
                free = ("available", "error")
                self._wait("volume", read, lambda v: v.status in free, _VOLUME_SECONDS, quiet)
                again("delete the volume", partial(storage.delete_volume, found.volume.id))
                gone = partial(self._gone, storage.volumes, found.volume.id)
                self._wait("volume", gone, lambda now: now.status == "gone", _VOLUME_SECONDS, quiet)
            if found.group:
                again("delete the security group", partial(network.delete_security_group, found.group.id))
            if found.key:
                again("delete the key pair", partial(compute.delete_keypair, self.name))
        self.place.forget()
        if found.volume and not delete_volume:
            self._note_down(made=False)
        elif self._record:
            self._record.unlink(missing_ok=True)

    def _is_ours(self, ip: Any) -> bool:
        """Tell whether the tutorial made a floating IP; the server may have one that the reader gave to it."""
        return bool(ip) and ip.description == self.mark

    def _note_down(self, *, made: bool) -> None:
        """Note what is in the cloud, for `tutorial clean`, which asks no cloud when it lists."""
        if self._record:
            note = {"cloud": self.home.name, "flavor": self.wanted.flavor, "made": made}
            write_atomically(self._record, json.dumps(note))

    @staticmethod
    def _gone(things: Callable[[], Any], identity: str) -> Any:
        return next((x for x in things() if x.id == identity), _Gone())


class _Gone:
    status = "gone"


def _same_key(registered: Any, public: str) -> bool:
    """Compare a registered key with a public one: by the key itself, or by Nova's fingerprint, the MD5 of the key."""
    if registered.public_key:
        return bool(registered.public_key.split()[:2] == public.split()[:2])
    digest = hashlib.md5(base64.b64decode(public.split()[1]), usedforsecurity=False).hexdigest()
    return bool(str(registered.fingerprint or "").replace(":", "") == digest)


def _way_in(ports: Sequence[Any], inside: Any) -> tuple[Any, str]:
    """Choose the port of a server that a floating IP goes to, and its address there, for a port may have several."""
    ways = [(p, a["ip_address"]) for p in ports for a in p.fixed_ips or [] if "." in a.get("ip_address", "")]
    ways.sort(key=lambda way: way[0].network_id != inside.id)
    if not ways:
        raise TutorialError(
            "The server has no IPv4 address inside the cloud", "a floating IP leads to such an address",
            "run the cell again in a minute; if it stays, take the server away and make it again: vm.clean()",
        )  # fmt: skip
    return ways[0]


def _server_failed(server: Any) -> TutorialError:
    said = str((server.fault or {}).get("message", ""))
    full = "No valid host" in said
    return TutorialError(
        "The server could not be made" if not server.launched_at else "The server is in the state ERROR",
        "the cloud has no free machine for this flavor now" if full else "the cloud gave up on it",
        "run the cell again later, or choose another flavor: a server that never ran is made anew"
        if not server.launched_at
        else f"it is billed; openstack server show {server.name} tells more, cloud-support@csc.fi helps",
        output=said,
    )


def notes() -> Path:
    """Give the folder where is noted what was made in the reader's own cloud, from whichever target."""
    return settings().state / "cloud"


def leftovers(target: str) -> list[Leftover]:
    """List what the tutorial made in the reader's own cloud; the volume, with its data, stays."""
    found = list[Leftover]()
    for record in sorted(notes().glob("tutorial-*.json")) if target not in ("local", "vm") else ():
        name = record.stem
        try:
            note = json.loads(record.read_text(encoding="utf-8"))
            where, flavor, made = f"cloud {note['cloud']}", str(note["flavor"]), bool(note["made"])
        except (ValueError, KeyError, TypeError):  # cut off while it was written, or edited
            look = f"openstack server list and openstack volume list show what is there; then delete {record}"
            found.append(Leftover(f"{name}: what it made can't be read", str(record), None, look))
            continue
        if made:
            what = f"{name}: server, floating IP, security group, key pair"
            found.append(Leftover(what, where, partial(_clean, record.parent, note["cloud"], flavor)))
        stays = f"its data can't be got back; openstack volume delete {name}, or clean(delete_volume=True)"
        found.append(Leftover(f"{name}: volume", where, None, stays))
    return found


def _clean(folder: Path, cloud: str, flavor: str) -> None:
    Cloud(connect(cloud), cloud, Path.home(), folder).vm(Wanted(flavor)).clean()
