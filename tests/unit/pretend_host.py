"""A machine that exists in a folder and in a few sets: commands change it as they would change a real one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossjit.host import Output

BOOKWORM = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
TRIXIE = 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'
NOBLE = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n'
FEDORA = 'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n'

COMMON = {"mmdebstrap": "1.3.5-7", "arch-test": "0.20-1", "zstd": "1.5.4", "acl": "2.3.1", "uidmap": "4.13"}
BOOKWORM_OFFERS = {
    **COMMON,
    "docker.io": "20.10.24+dfsg1-1+deb12u1+b6",
    "qemu-user-static": "1:7.2+dfsg-7+deb12u18+b3",
    "qemu-user": "1:7.2+dfsg-7+deb12u18+b3",
    "qemu-user-binfmt": "1:7.2+dfsg-7+deb12u18+b3",
    "binfmt-support": "2.2.2-2",
}
TRIXIE_OFFERS = {
    **COMMON,
    "docker.io": "26.1.5+dfsg1-9+b7",
    "docker-cli": "26.1.5+dfsg1-9+b7",
    "docker-buildx": "0.13.1+ds1-3",
    "qemu-user-static": "1:10.0.13+ds-0+deb13u1",
    "qemu-user": "1:10.0.13+ds-0+deb13u1",
    "qemu-user-binfmt": "1:10.0.13+ds-0+deb13u1",
}
NOBLE_OFFERS = {
    **COMMON,
    "docker.io": "28.2.2-0ubuntu1~24.04.1",
    "docker-buildx": "0.21.3-0ubuntu1~24.04.1",
    "qemu-user-static": "1:8.2.2+ds-0ubuntu1.10",
    "binfmt-support": "2.2.2-7",
}
MIRROR = "http://mirror.invalid/debian/"
MEMORY = 8 << 30
BINFMT = "proc/sys/fs/binfmt_misc"


class PretendHost:
    """A `Shell`. `changes` records every command that is meant to change something, without sudo."""

    def __init__(
        self,
        folder: Path,
        release: str,
        offers: Mapping[str, str] | None = None,
        *,
        root: bool = True,
        sudo: str = "none",  # none, quiet, asks
        service_manager: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.root = folder / "host"
        self.is_root = root
        self.user = "root" if root else "jane"
        self.machine, self.system, self.kernel = "x86_64", "Linux", "6.1.0-pretend"
        self.environ: Mapping[str, str] = environ or {}
        self.sudo = sudo
        self.has_apt = offers is not None
        self.offers = dict(offers or {})
        self.newer = dict(TRIXIE_OFFERS)
        self.programs = {"apt-get", "dpkg"} if self.has_apt else {"rpm"}
        self.programs |= {"sudo"} if sudo != "none" else set()
        self.service_manager = service_manager
        self.lists_read = False
        self.buildx = ""
        self.engine_version = ""  # of the installed daemon
        self.running = False
        self.daemon_works = True
        self.storage = "overlay2"
        self.half_installed = False
        self.downloaded: list[str] = []
        self.installed: dict[str, str] = {}  # versions by package
        self.written: dict[str, str] = {}  # files that commands wrote
        self.socket_open_to: set[str] = set()
        self.remote = False
        self.elsewhere: dict[str, dict[str, object]] = {}  # what engines say of themselves, by their address
        self.context: tuple[str, str] | None = ("default", "unix:///var/run/docker.sock")  # None: it is gone
        self.changes: list[str] = []
        self.used_sudo: list[tuple[str, ...]] = []
        self.slept = 0.0
        self.failing: dict[str, str] = {}  # part of a command: what it writes before it fails
        self.stop_before: int | None = None  # interrupt when so many changes were made
        self.stop_after: int | None = None
        self.write("etc/os-release", release)
        self.write("proc/meminfo", f"MemTotal:       {MEMORY // 1024} kB\n")
        self.write("usr/share/keyrings/debian-archive-keyring.gpg", "")
        if service_manager:
            (self.root / "run/systemd/system").mkdir(parents=True)

    # what tests set up

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def with_engine(self, version: str = "26.1.5", buildx: str = "0.13.1", *, running: bool = True) -> PretendHost:
        self.programs |= {"docker", "dockerd"}
        self.engine_version, self.buildx = version, buildx
        if running:
            self.start()
        return self

    def with_emulation(self, flags: str = "PF", state: str = "enabled") -> PretendHost:
        self.install("qemu-user-static")
        self.mounted()
        self.handler("qemu-aarch64", "/usr/libexec/qemu-binfmt/aarch64-binfmt-P", flags, state=state)
        return self

    def with_tools(self) -> PretendHost:
        self.programs |= {"mmdebstrap", "arch-test", "setfacl"}
        return self

    def mounted(self) -> None:
        self.write(f"{BINFMT}/register", "")
        self.write(f"{BINFMT}/status", "enabled\n")

    def handler(
        self,
        name: str,
        interpreter: str,
        flags: str,
        magic: str = "7f454c460201010000000000000000000200b700",
        mask: str = "ffffffffffffff00fffffffffffffffffeffffff",
        state: str = "enabled",
    ) -> None:
        text = f"{state}\ninterpreter {interpreter}\nflags: {flags}\noffset 0\nmagic {magic}\nmask {mask}\n"
        self.write(f"{BINFMT}/{name}", text)

    def start(self) -> None:
        if self.daemon_works:
            self.running = True
            self.write("var/run/docker.sock", "")
            self.write("var/run/docker.pid", "77")
            self.write("proc/77/comm", "dockerd\n")

    def install(self, package: str, offers: Mapping[str, str] | None = None) -> None:
        offers = self.offers if offers is None else offers
        version = re.sub(r"^\d+:", "", offers.get(package, "")).split("-")[0]
        self.installed[package] = offers.get(package, "")
        if package == "docker.io":
            self.programs |= {"dockerd"} if "docker-cli" in offers else {"dockerd", "docker"}
            self.engine_version = version
            if self.service_manager:
                self.start()
        elif package in ("docker-cli", "podman"):
            self.programs.add(package.removesuffix("-cli"))
        elif package in ("docker-buildx", "docker-buildx-plugin"):
            self.buildx = version
        elif package in ("qemu-user-static", "qemu-user"):
            self.write(
                "usr/bin/qemu-aarch64-static" if package.endswith("static") else "usr/bin/qemu-aarch64", "static"
            )
            if package.endswith("static"):
                self.write("usr/libexec/qemu-binfmt/aarch64-binfmt-P", "static")
        elif package == "binfmt-support":
            self.programs.add("update-binfmts")
        elif package == "uidmap":
            self.programs.add("newuidmap")
        elif package == "acl":
            self.programs.add("setfacl")
        else:
            self.programs.add(package)

    # Shell

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self.programs else None

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def run(self, argv: Sequence[str], *, text: str | None = None, timeout: float | None = None) -> Output:
        code, stdout, stderr = self._run(tuple(argv), text)
        return Output(tuple(argv), code, 0.0, stdout, stderr)

    def _run(self, argv: tuple[str, ...], text: str | None) -> tuple[int, str, str]:
        mighty = self.is_root
        if argv[0] == "sudo":
            if self.sudo == "none":
                return 127, "", "sudo: not found"
            if argv[1] == "-n" and self.sudo == "asks":
                return 1, "", "sudo: a password is required"
            self.used_sudo.append(argv)
            argv = argv[2:] if argv[1] == "-n" else argv[1:]
            if argv == ("-v",) or argv == ("true",):
                return 0, "", ""
            mighty = True
        looked = self._style(argv, mighty)
        if looked is not None:
            return looked
        if self.stop_before == len(self.changes):
            raise KeyboardInterrupt
        if not mighty:
            return 1, "", f"{argv[0]}: you are not root"
        line = " ".join(argv)
        for part, message in self.failing.items():
            if part in line:
                return 100, "", message
        self.changes.append(line)
        result = self._change(argv, line, text)
        if self.stop_after == len(self.changes):
            raise KeyboardInterrupt
        return result

    def _style(self, argv: tuple[str, ...], mighty: bool) -> tuple[int, str, str] | None:
        match argv:
            case ["docker", *_] | ["podman", *_] if argv[0] not in self.programs:
                return 127, "", f"{argv[0]}: No such file or directory"
            case ["docker", "info", *_]:
                return self._info(mighty)
            case ["docker", "--host", address, "info", *_]:
                return self._info_elsewhere(address)
            case ["docker", "context", "inspect"]:
                return self._context()
            case ["docker", "buildx", "version"] if self.buildx:
                return 0, f"github.com/docker/buildx {self.buildx}", ""
            case ["docker", "--version"]:
                return 0, f"Docker version {self.engine_version}, build 1", ""
            case ["test", "-w", path]:
                return (0 if self._may_use_socket(mighty) and (self.root / path).exists() else 1), "", ""
            case ["podman", "info", *_]:
                host = {"arch": "amd64", "cgroupVersion": "v2", "cpus": 2, "memTotal": 8 << 30, "kernel": self.kernel}
                version = self.installed["podman"].partition("+")[0]
                return 0, json.dumps({"host": host, "version": {"Version": version}}), ""
            case ["podman", "--version"]:
                return 0, f"podman version {self.installed['podman']}", ""
            case ["apt-cache", "policy", *names]:
                return 0, "".join(self._policy(name) for name in names), ""
            case ["apt-get", "indextargets", *_]:
                suites = (" main", " contrib", "-security main")
                return 0, "".join(f"{MIRROR} {self._codename()}{suite}\n" for suite in suites), ""
            case ["dpkg", "--audit"]:
                return 0, "The following packages are only half configured" if self.half_installed else "", ""
            case [program, "--version"] if "qemu" in program:
                pretend = self.root / program.lstrip("/")
                return (0, "qemu-aarch64 version 7.2.22 (Debian)", "") if pretend.exists() else (127, "", "")
            case ["tail" | "journalctl", *_]:
                return 0, "level=info msg=starting\nfailed to start daemon: no room\n", ""
        return None

    def _policy(self, name: str) -> str:
        """Say what apt knows of a package, as `apt-cache policy` does."""
        offered = {"oldstable": self.offers.get(name)} if self.lists_read else {}
        if "crossjit-trixie.sources" in " ".join(self.written) and self.lists_read:
            offered["trixie"] = self.newer.get(name)
        places = [(version, f"500 {MIRROR} {suite}/main") for suite, version in offered.items() if version]
        mine = self.installed.get(name)
        if not places and mine is None:
            return ""
        if mine is not None:
            places.append((mine, "100 /var/lib/dpkg/status"))
        table = "".join(
            f" {'***' if version == mine else '   '} {version} 500\n"
            + "".join(f"        {place}\n" for other, place in places if other == version)
            for version in dict.fromkeys(version for version, _ in places)
        )
        return f"{name}:\n  Installed: {mine or '(none)'}\n  Candidate: {places[0][0]}\n  Version table:\n{table}"

    def _info(self, mighty: bool) -> tuple[int, str, str]:
        client = {
            "Version": self.engine_version,
            "Plugins": [{"Name": "buildx", "Version": self.buildx}] if self.buildx else [],
        }
        if self.context is None:
            return self._context()
        address = self.environ.get("DOCKER_HOST", "") or (self.context[1] if self.context[0] != "default" else "")
        if address and not self.remote:
            return 1, json.dumps({"ServerErrors": [f"no answer from {address}"], "ClientInfo": client}), ""
        if not self.remote and not self.running:
            return 1, json.dumps({"ServerErrors": ["Cannot connect to the Docker daemon"], "ClientInfo": client}), ""
        if not self.remote and not self._may_use_socket(mighty):
            return 1, json.dumps({"ServerErrors": ["permission denied"], "ClientInfo": client}), ""
        info = {
            "ServerVersion": self.engine_version,
            "Architecture": "x86_64",
            "CgroupVersion": "2",
            "Driver": self.storage,
            "DockerRootDir": "/",
            "KernelVersion": "6.10.14-linuxkit" if self.remote else self.kernel,
            "OperatingSystem": "Docker Desktop" if self.remote else "Debian",
            "MemTotal": MEMORY,
            "NCPU": 2,
            "ClientInfo": client,
        }
        return 0, json.dumps(info), ""

    def _info_elsewhere(self, address: str) -> tuple[int, str, str]:
        client = {"Version": self.engine_version, "Plugins": [{"Name": "buildx", "Version": self.buildx}]}
        if address not in self.elsewhere:
            return 1, json.dumps({"ServerErrors": [f"no answer from {address}"], "ClientInfo": client}), ""
        about: dict[str, object] = {"ServerVersion": "28.2.2", "CgroupVersion": "2", "Driver": "overlay2"}
        about |= {"KernelVersion": "6.12-far", "MemTotal": MEMORY, "NCPU": 8, "OperatingSystem": "Debian"}
        about["ClientInfo"] = client
        return 0, json.dumps({**about, **self.elsewhere[address]}), ""

    def _context(self) -> tuple[int, str, str]:
        if self.context is None:
            return 1, "[]", 'context "gone": context not found: open meta.json: no such file or directory'
        name, address = self.context
        return 0, json.dumps([{"Name": name, "Endpoints": {"docker": {"Host": address}}}]), ""

    def _may_use_socket(self, mighty: bool) -> bool:
        return self.running and (mighty or self.user in self.socket_open_to)

    def _codename(self) -> str:
        match = re.search(r"CODENAME=(\w+)", (self.root / "etc/os-release").read_text())
        return match[1] if match else ""

    def _change(self, argv: tuple[str, ...], line: str, text: str | None) -> tuple[int, str, str]:
        if "apt-get" in argv or argv[0] == "sh":
            return self._apt(argv, line)
        match argv:
            case ["env", *_, "dpkg", "--force-confdef", "--force-confold", "--configure", "-a"]:
                self.half_installed = False
                for file in (self.root / "var/lib/dpkg/updates").glob("*"):
                    file.unlink()
            case ["mount", "-t", "binfmt_misc", *_]:
                self.mounted()
            case ["update-binfmts", "--enable", name]:
                if not (self.root / BINFMT / "register").exists():
                    return 2, "", "update-binfmts: binfmt_misc is not mounted"
                self.handler(name, "/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "PF")
            case ["tee", path]:
                return self._tee(path, text or "")
            case ["systemctl", "enable", "--now", "docker.service"] | ["setsid", *_]:
                if "dockerd" not in self.programs:
                    return 1, "", "no such unit"
                self.start()
            case ["systemctl", "restart", "systemd-binfmt.service"]:
                self.mounted()
                self.handler("qemu-aarch64", "/usr/bin/qemu-aarch64", "PF")
            case ["usermod", "-aG", "docker", _]:
                pass
            case ["setfacl", "-m", entry, _]:
                if "setfacl" not in self.programs:
                    return 127, "", "setfacl: not found"
                self.socket_open_to.add(entry.split(":")[1])
            case ["rm", _, path]:
                target = self.root / path.lstrip("/")
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
                self.downloaded = [] if "crossjit" in path else self.downloaded
            case ["mkdir", "-p", _]:
                pass
            case _:
                raise AssertionError(f"the pretend host does not know {line}")
        return 0, "", ""

    def _apt(self, argv: tuple[str, ...], line: str) -> tuple[int, str, str]:
        if argv[0] == "sh" and ".deb" not in line:
            return 0, "", ""  # making room for cgroups
        if self.half_installed and "--fix-broken" not in argv and "update" not in argv and "download" not in argv:
            return 100, "", "E: dpkg was interrupted, you must manually run 'dpkg --configure -a'"
        newer = "Dir::Etc::SourceParts=/dev/null" in argv
        if "update" in argv:
            self.lists_read = self.lists_read or not newer
        elif "download" in argv:
            self.downloaded = [name.split("/")[0] for name in argv[argv.index("download") + 1 :]]
        elif ".deb" in line:
            self.half_installed = True
            for package in self.downloaded:
                self.install(package, self.newer)
            self.half_installed = False
        elif "--fix-broken" not in argv:
            if "--only-upgrade" in argv:
                return 0, "", ""
            for package in argv[argv.index("install") + 1 :]:
                if package not in self.offers or not self.lists_read:
                    return 100, "", f"E: Unable to locate package {package}"
                self.install(package)
        return 0, "", ""

    def _tee(self, path: str, text: str) -> tuple[int, str, str]:
        if not path.startswith(f"/{BINFMT}/"):
            self.write(path, text)
            self.written[path] = text
            return 0, "", ""
        file = self.root / path.lstrip("/")
        if not file.exists():
            return 1, "", f"tee: {path}: No such file or directory"
        if path.endswith("/register"):
            # the kernel's own format: the first character is the separator, \xNN stand for bytes
            _, name, kind, offset, magic, mask, interpreter, flags = text.split(text[0])
            assert (kind, offset) == ("M", "")
            if (self.root / BINFMT / name).exists():
                return 1, "", "tee: register: File exists"
            if not (self.root / interpreter.lstrip("/")).exists():
                return 1, "", "tee: register: No such file or directory"
            self.handler(name, interpreter, flags, *(_bytes(part).hex() for part in (magic, mask)))
        elif text == "-1":
            file.unlink()
        elif path.endswith("/status"):
            file.write_text("enabled\n")
        else:
            file.write_text(file.read_text().replace("disabled", "enabled"))
        return 0, "", ""


def _bytes(text: str) -> bytes:
    return re.sub(r"\\x(..)", lambda match: chr(int(match[1], 16)), text).encode("latin-1")
