"""Postgres refuses to run as root, so under root it is given another identity.

First choice: a user namespace, in which root's files appear to be somebody else's; nothing on the disk changes.
Where namespaces are forbidden (many containers): a real other user, with data and programs where that user can go.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from services.console.stack.refusals import NotInstalled

# Where the Filesystem Hierarchy Standard has services' data; /tmp may be emptied, and home is closed to others.
SHARED_STATE = Path("/var/lib/siyu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom Postgres runs as, and where its data and programs are for that one."""

    prefix: tuple[str, ...]
    data: Path
    programs: Path
    owner: tuple[int, int] | None = None

    def claim(self, folder: Path) -> None:
        """Makes the folder, closed to all but this identity, which can write to it then."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if self.owner is not None:
            os.chown(folder, *self.owner)

    def write(self, file: Path, text: str) -> Path:
        """Writes a file that this identity can read, and nobody else."""
        file.touch(mode=0o600)
        file.write_text(text)
        if self.owner is not None:
            os.chown(file, *self.owner)
        return file


def identity_for(data: Path, *, programs: Path, shared_state: Path = SHARED_STATE) -> Identity:
    """The identity that Postgres accepts: ourselves, a namespace, or another user.

    That other user's data and programs move below `shared_state` if it can't go where ours are.
    Raises NotInstalled if root has neither of the last two."""
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return Identity(prefix=(), data=data, programs=programs)
    nobody = _ordinary_user()
    namespace = ("unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", "--")
    home = shared_state / hashlib.sha256(str(data).encode()).hexdigest()[:16]
    settled_elsewhere = (home / "data").exists() or (data.exists() and data.stat().st_uid != os.geteuid())
    if not settled_elsewhere and _works((*namespace, str(programs / "postgres"), "--version")):
        return Identity(prefix=namespace, data=data, programs=programs)
    return _other_user(nobody, data=data, programs=programs, home=home)


def _other_user(user: pwd.struct_passwd, *, data: Path, programs: Path, home: Path) -> Identity:
    switch = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
    if not _works((*switch, str(programs / "postgres"), "--version")):
        programs = _copied(programs, to=home)
    owner = (user.pw_uid, user.pw_gid)
    if not _works((*switch, "test", "-x", str(data.parent))):
        data = home / "data"
        home.mkdir(parents=True, exist_ok=True)
        _open_to_all(home.parent, home)
    if not _works((*switch, str(programs / "postgres"), "--version")):
        raise NotInstalled(
            "Postgres runs neither in a user namespace nor as another user: start Siyu as an ordinary user, "
            "or give it a server with DATABASE_URL=… and REDIS_URL=…"
        )
    return Identity(prefix=switch, data=data, programs=programs, owner=owner)


def _copied(programs: Path, *, to: Path) -> Path:
    """Copies the programs and their libraries, which the wheel keeps beside the package; returns the new folder."""
    package = programs.parents[1]
    copy = to / "programs"
    if not (copy / "complete").exists():
        shutil.rmtree(copy, ignore_errors=True)
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, copy / part.name)
        (copy / "complete").touch()
    _open_to_all(to.parent, to, copy)
    return copy / package.name / programs.relative_to(package)


def _open_to_all(*folders: Path) -> None:
    for folder in folders:
        folder.chmod(0o755)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _ordinary_user() -> pwd.struct_passwd:
    """`nobody`, or else any user but root: initdb wants an identity that has a name."""
    users = sorted((user for user in pwd.getpwall() if user.pw_uid != 0), key=lambda user: user.pw_name != "nobody")
    if not users:
        raise NotInstalled("this machine knows no user but root, and Postgres does not run as root")
    return users[0]


def _works(command: tuple[str, ...]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
