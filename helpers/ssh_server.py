"""An SSH server on a loopback port that plays the cloud VM on the target `local`: `python -m helpers.ssh_server`.

It accepts one key, runs commands for real as the user who started it, in a sandbox home, serves SFTP and forwards to
loopback addresses (https://asyncssh.readthedocs.io/en/latest/#server-examples).
"""

import argparse
import asyncio
import os
import signal
import subprocess
from pathlib import Path

import asyncssh


class LoopbackServer(asyncssh.SSHServer):
    """Public keys only; tunnels lead to this machine only."""

    def begin_auth(self, username: str) -> bool:
        """Ask everyone for a key."""
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """Allow `ssh -L` and `ssh -J` to loopback addresses."""
        return dest_host in ("localhost", "127.0.0.1", "::1")


class Files(asyncssh.SFTPServer):
    """SFTP in the sandbox home; a session ends with exit status 0, which `scp` over a shared connection waits for."""

    def exit(self) -> None:
        """Tell the client that all went well."""
        self.channel.exit(0)


async def run_command(process: "asyncssh.SSHServerProcess[bytes]", home: Path) -> None:
    """Run a client's command, or a shell that reads commands, and hand its streams and exit code through."""
    command = process.command
    argv = ["/bin/sh", "-c", command] if command else ["/bin/sh"]
    environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "USER": home.name}
    pipe = subprocess.PIPE
    # Popen and not asyncio's: the loop may close the streams of a quick child before they are redirected.
    with subprocess.Popen(
        argv, cwd=home, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as child:
        gone = asyncio.ensure_future(process.wait_closed())
        work = asyncio.ensure_future(_hand_through(process, child))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # the client has gone, or this server ends: so does the command, with all that it has started
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            gone.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def _hand_through(process: "asyncssh.SSHServerProcess[bytes]", child: "subprocess.Popen[bytes]") -> None:
    # The end of the streams goes out with the exit status: a shared connection would drop a later one.
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr, send_eof=False)
    await process.stdout.drain()
    await process.stderr.drain()
    code = await asyncio.to_thread(child.wait)
    process.exit(code if code >= 0 else 128 - code)


async def serve(port: int, home: Path, host_key: Path, authorized_keys: Path) -> None:
    """Serve until SIGTERM."""
    os.chdir(home)  # SFTP's relative paths start here
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncssh.create_server(
        LoopbackServer,
        "127.0.0.1",
        port,
        server_host_keys=[str(host_key)],
        authorized_client_keys=str(authorized_keys),
        process_factory=lambda process: run_command(process, home),
        sftp_factory=Files,
        encoding=None,
        login_timeout=20,
    )
    async with server:
        await stop.wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--home", type=Path, required=True, help="folder that commands run in")
    parser.add_argument("--host-key", type=Path, required=True, help="the server's private key")
    parser.add_argument("--authorized-keys", type=Path, required=True, help="public keys that may log in")
    words = parser.parse_args()
    asyncio.run(serve(words.port, words.home.resolve(), words.host_key.resolve(), words.authorized_keys.resolve()))


if __name__ == "__main__":
    main()
