"""Keys for SSH: files, keys that only an agent holds, keys on hardware, certificates.

Nothing here asks for a passphrase. An agent is meant by the path of its socket. An empty text means the one of
SSH_AUTH_SOCK, and `none` means no agent, as `IdentityAgent` of ssh_config(5) has it.
"""

import stat
from pathlib import Path
from shlex import quote

from helpers.errors import TutorialError
from helpers.target import Completed, failed
from helpers.target_local import run_here

_PUBLIC = ("ssh-", "ecdsa-", "sk-")  # what a public key or a certificate begins with
_START = 'eval "$(ssh-agent)"'


def check_key(path: Path, agent: str = "") -> Path:
    """Make sure that ssh can log in with a key without asking for anything.

    A private key may have a passphrase where an agent holds it. It may be missing where its public half (`NAME.pub`) is
    on this machine and an agent holds it: a key on hardware, or one that has been moved into a password manager.

    Args:
        path: The private key, or the public half of one that an agent holds. `Path()` stands for no file: ssh tries
            whatever the agent holds.
        agent: The agent's socket; see this module.

    Returns:
        Its path.

    Raises:
        TutorialError: It is missing, too open, not a key, or neither a file nor an agent gives it without a question.
    """
    if path == Path():
        if not held(agent):
            raise TutorialError(
                "No agent holds a key", "no key file was named either", "name a key file, or ssh-add it"
            )
        return path
    path = path.expanduser()
    try:
        if not path.is_file():
            return _without_file(path, agent)
        head, is_open = path.read_bytes()[:64], stat.S_IMODE(path.stat().st_mode) & 0o077
    except OSError as error:
        raise TutorialError(
            f"The key {path} can't be read", str(error.strerror), f"chmod 600 {quote(str(path))}"
        ) from None
    if head.startswith(tuple(word.encode() for word in _PUBLIC)):
        return _public(path, agent)
    if is_open:
        raise TutorialError(f"The key {path} is too open", "others may read it, so ssh refuses it", f"chmod 600 {path}")
    if b"PuTTY" in head:
        remedy = f"puttygen {quote(str(path))} -O private-openssh -o NEW-FILE"
        raise TutorialError(f"{path} is not a private key of OpenSSH", "it has the format of PuTTY", remedy)
    done = _keygen("-y", "-P", "", "-f", str(path))
    if done.returncode == 0 or ("passphrase" in done.stderr and _fingerprint(path) in (held(agent) or ())):
        return path
    if "passphrase" in done.stderr:
        why = "no agent runs" if held(agent) is None else "the agent does not hold it"
        raise TutorialError(
            f"The key {path} has a passphrase", f"notebooks cannot type it, and {why}", _add(path, agent)
        )
    raise TutorialError(f"{path} is not a private key", done.stderr.strip(), "choose another file")


def _without_file(path: Path, agent: str) -> Path:
    """Accept a key whose private half is not on this machine, where an agent holds it."""
    public = Path(f"{path}.pub")
    if path.exists():
        raise TutorialError(f"{path} is not a file", "", "name the file of the private key")
    if public.is_file():
        _public(public, agent)
        return path
    remedy = f"make one: ssh-keygen -t ed25519 -f {quote(str(path))}"
    if held(agent):
        save = f"ssh-add -L >{quote(str(public))}"
        remedy = f"an agent holds keys; to use one of them, save its public half: {save}. Else {remedy}"
    raise TutorialError(f"There is no key {path}", "", remedy)


def _public(path: Path, agent: str) -> Path:
    """Accept a public key or a certificate whose private half an agent holds."""
    if _fingerprint(path) in (held(agent) or ()):
        return path
    private = path.with_name(path.name.removesuffix(".pub").removesuffix("-cert"))
    if private != path and private.is_file():
        raise TutorialError(
            f"{path} is the public key", "", f"name the file beside it without {path.name[len(private.name) :]}"
        )
    raise TutorialError(
        f"{path} is the public key",
        f"there is no {private}, and {'no agent runs' if held(agent) is None else 'the agent does not hold the key'}",
        f"copy the private key to this machine, or {_add(private, agent)}",
    )


def _add(path: Path, agent: str) -> str:
    """Say how an agent gets a key: a passphrase is typed once, in a terminal."""
    add = f"ssh-add {quote(str(path))}"
    if held(agent) is not None:
        return f"give it to the agent in a terminal: {add}"
    return f"give it to an agent in the terminal that starts the tutorial: {_START}; {add}"


def held(agent: str = "") -> list[str] | None:
    """List the fingerprints of the keys that an agent holds.

    Args:
        agent: The agent's socket; see this module.

    Returns:
        SHA256 fingerprints; None where no agent answers.
    """
    if agent == "none":
        return None
    try:
        env = {"SSH_AUTH_SOCK": agent} if agent else {}
        done = run_here(["ssh-add", "-l", "-E", "sha256"], check=False, timeout=10, env=env)
    except TutorialError:  # an agent that hangs, such as a forwarded one whose login is gone
        return None
    if done.returncode not in (0, 1):
        return None
    return [line.split()[1] for line in done.stdout.splitlines() if " SHA256:" in line]


def is_unlocked(path: Path) -> bool:
    """Tell whether a file is a private key that needs no passphrase."""
    return path.is_file() and _keygen("-y", "-P", "", "-f", str(path)).returncode == 0


def key_fingerprint(path: Path, agent: str = "") -> str:
    """Give a key's SHA256 fingerprint, as `ssh-keygen -l` shows it; without a file that of the agent's first key."""
    if path == Path():
        return next(iter(held(agent) or ()), "")
    done = _keygen("-l", "-E", "sha256", "-f", str(path))
    if done.returncode != 0:
        raise failed("local", done)
    return done.stdout.split()[1]


def _fingerprint(path: Path) -> str:
    done = _keygen("-l", "-E", "sha256", "-f", str(path))
    return done.stdout.split()[1] if done.returncode == 0 else ""


def make_key(path: Path) -> Path:
    """Make an ed25519 key without passphrase, unless there is one already.

    Args:
        path: The private key; the public one is beside it.

    Returns:
        Its path.

    Raises:
        TutorialError: There is one that can't be used; see `check_key`. No file is ever replaced.
    """
    if not path.exists() and not Path(f"{path}.pub").exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _done(_keygen("-q", "-t", "ed25519", "-N", "", "-C", "tutorial", "-f", str(path)))
    return check_key(path)


def public_key(path: Path) -> str:
    """Give the public half of a key: from the file beside it, else from the private key itself.

    Args:
        path: The private key. Clouds give a `.pem` without a public file.

    Returns:
        One line, as in authorized_keys.

    Raises:
        TutorialError: There is neither a public file nor a private key without passphrase.
    """
    beside = Path(f"{path}.pub")
    if beside.is_file():
        return beside.read_text(encoding="utf-8", errors="replace").strip()
    return _done(_keygen("-y", "-P", "", "-f", str(path))).stdout.strip()


def _done(done: Completed) -> Completed:
    if done.returncode != 0:
        raise failed("local", done)
    return done


def _keygen(*words: str) -> Completed:
    done = run_here(["ssh-keygen", *words], check=False, timeout=20)
    if done.returncode in (126, 127):
        raise failed("local", done)
    return done
