"""A service to look at from outside: real Redis servers and the built program, in a temporary folder, on free ports.

Only commands of the product and its wire are used; nothing here knows how it is built. Whatever is started ends with the
`with` block, and with this process should it be killed.
"""

import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "target" / "outside"

# Below the range from which systems take the ports of outgoing connections.
PORTS = range(15_000, 32_000)
START_SECS = 60
# Linux, `linux/prctl.h`: the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


def say(line):
    print(line, flush=True)


def fail(line):
    raise SystemExit(f"FAILED: {line}")


def program():
    """The built `redkeep`: REDKEEP_BIN, else the release build, else the debug build."""
    named = os.environ.get("REDKEEP_BIN")
    candidates = [Path(named).resolve()] if named else [ROOT / "target" / kind / "redkeep" for kind in ("release", "debug")]
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate
    return fail(f"there is no program at {candidates[0]}; build it with `cargo build --release` or name it in REDKEEP_BIN")


def server_program(*names):
    for name in names:
        if found := shutil.which(name):
            return found
    return fail(f"none of {', '.join(names)} is installed; tests/engines/install-servers does it")


def free_port():
    for _ in range(100):
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return fail("no free port was found")


def until(what, question, bound=START_SECS):
    """Asks until the answer is true, and gives it back."""
    deadline = time.monotonic() + bound
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.05)
    return fail(f"after {bound} s it is not so that {what}")


def virtualenv(requirements):
    """A Python of its own with exactly these packages, made once below target/; gives back its folder of programs."""
    text = requirements.read_text() + sys.version
    folder = CACHE / f"python-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        say(f"installing {requirements.relative_to(ROOT)}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = [folder / "bin" / "pip", "install", "-q", "--disable-pip-version-check", "--require-virtualenv", "-r", requirements]
        subprocess.run(command, check=True)
        (folder / "complete").touch()
    return folder / "bin"


def node_modules(package):
    """The packages of a lock file, made once below target/; gives back the folder that holds `node_modules`."""
    lock = package / "package-lock.json"
    folder = CACHE / f"node-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in (package / "package.json", lock):
            shutil.copy(file, folder)
        say(f"installing {lock.relative_to(ROOT)}")
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=folder, check=True)
        (folder / "complete").touch()
    return folder


def die_with_parent():
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Stand:
    """Servers and the service.

    Clusters: `demo` (a primary and a replica) and `waiting` (of a zone that nobody serves, so that its operations stay
    queued) and `locked` (its password is not configured, so that its backups fail) in the folder `default`; `foreign`
    in the folder `shop`.
    """

    def __init__(self, login=True, tls=True, server="", auth="", tokens=None, zones=("here",)):
        """`server` and `auth` are further lines of these sections; `tokens` are by subject: folder, role and options. With no
        `zones` every cluster is served."""
        self.login, self.tls, self.server, self.auth, self.zones = login, tls, server, auth, zones
        self.wanted = {"operator": ("*", "admin")} | (tokens or {})
        self.program = program()
        self.children = []

    def __enter__(self):
        # A signal becomes an exception, so that the clean-up below runs.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        self.folder = Path(tempfile.mkdtemp(prefix="redkeep-outside-"))
        try:
            self.start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, *_):
        for child in reversed(self.children):
            child.terminate()
        for child in reversed(self.children):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        log = self.folder / "redkeep.log"
        if kind is not None and log.exists():
            say("the last lines of the service's log:")
            say("\n".join(log.read_text(errors="replace").splitlines()[-20:]))
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        primary = self.redis()
        replica = self.redis("--replicaof", "127.0.0.1", str(primary))
        locked = self.redis("--requirepass", "nobody-tells-it")
        self.cli(primary, "EVAL", "for i = 1, 5000 do redis.call('SET', 'key:' .. i, string.rep('v', i % 200)) end", "0")
        until("the replica is linked", lambda: "master_link_status:up" in self.cli(replica, "INFO", "replication"))

        self.port, self.admin_port = free_port(), free_port()
        # The name is in the certificate, and clients dial what they are told.
        self.address = f"localhost:{self.port}"
        self.url = f"{'https' if self.tls else 'http'}://{self.address}"
        if self.tls:
            self.redkeep("dev-certs", self.folder / "tls")
        self.ca = self.folder / "tls" / "ca.pem"
        (self.folder / "redkeep.toml").write_text(self.configuration(primary, replica, locked))
        if self.login:
            self.tokens = {subject: self.token(subject, *wanted) for subject, wanted in self.wanted.items()}
        with (self.folder / "redkeep.log").open("w") as log:
            self.spawn([self.program, "serve", "--config", self.folder / "redkeep.toml"], stdout=log, stderr=log)
        service = self.children[-1]
        until("the service is ready", lambda: service.poll() is not None or self.is_ready())
        if service.poll() is not None:
            fail(f"the service ended with status {service.returncode}")

    def configuration(self, primary, replica, locked):
        lines = [
            "[server]",
            f'listen = "127.0.0.1:{self.port}"',
            f'admin_listen = "127.0.0.1:{self.admin_port}"',
            f'advertise = "{self.address}"',
            self.server,
        ]
        if self.tls:
            lines += ["[server.tls]", 'cert = "tls/server.pem"', 'key = "tls/server-key.pem"']
        lines += ["[store]", 'url = "sled:store"', "[artifacts]", 'url = "file:artifacts"']
        lines += ["[executor]", 'refork_delay = "0s"', 'delete_grace = "0s"', f"zones = {json.dumps(list(self.zones))}"]
        lines += ["[auth]", 'mode = "tokens"', 'file = "tokens"', self.auth] if self.login else []
        for cluster, folder, ports, zone in [
            ("demo", "default", [primary, replica], "here"),
            ("locked", "default", [locked], "here"),
            ("waiting", "default", [primary], "elsewhere"),
            ("foreign", "shop", [primary], "elsewhere"),
        ]:
            nodes = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
            lines += ["[[clusters]]", f'id = "{cluster}"', f'folder_id = "{folder}"', f"nodes = [{nodes}]", f'zone = "{zone}"']
        return "\n".join(lines) + "\n"

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def spawn(self, command, **options):
        self.children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, **options))
        return self.children[-1]

    def redis(self, *options):
        port = free_port()
        folder = self.folder / f"redis-{port}"
        folder.mkdir()
        command = [server_program("redis-server", "valkey-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", *options]
        self.spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # One that asks for a password answers as well.
        until("a Redis server answers", lambda: self.cli(port, "PING").startswith(("PONG", "NOAUTH")))
        return port

    def cli(self, port, *words):
        command = [server_program("redis-cli", "valkey-cli"), "-p", str(port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def redkeep(self, *words, **environment):
        """Runs a command of the product, and gives back what it prints."""
        run = subprocess.run([self.program, *words], capture_output=True, text=True, check=False, env=os.environ | environment)
        if run.returncode != 0:
            fail(f"redkeep {' '.join(map(str, words))} ended with status {run.returncode}: {run.stderr.strip()}")
        return run.stdout

    def token(self, subject, folder, role, *options):
        """Makes a token as a user does."""
        words = ["--file", self.folder / "tokens", "--subject", subject, "--folder", folder, "--role", role, *options]
        return self.redkeep("token", "create", *words).split()[-1]

    def client(self, *words, token=None):
        """Runs a command of the product's own client against the service, and gives back what it prints."""
        words = [*words, "--endpoint", self.url]
        words += ["--ca", self.ca] if self.tls else []
        return self.redkeep(*words, **({"REDKEEP_TOKEN": token or self.tokens["operator"]} if self.login else {}))
