"""``ldoms-lab``: make labs of hosts on one machine, use them, and take them away."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from ldoms.lab import images, lab
from ldoms.lab.cell import ask_all_cells, run_in_cell
from ldoms.lab.guests import add_guest
from ldoms.lab.links import Cut, Shape, parse_delay_s, parse_loss, parse_rate
from ldoms.lab.seed import NOTHING_MORE
from ldoms.model.errors import LdomsError, NotFound, RequestError
from ldoms.model.sizes import format_size

_EPILOG = """
examples:
  ldoms-lab up                                 two hosts, t4-1 and t4-2
  ldoms-lab exec t4-1 -- ldm list              a command on one of them
  ldoms-lab guest ldg1 postgres                a domain from an image, bound on t4-1
  ldoms-lab shape --rate 1gbit --delay 2ms     the link between the hosts
  ldoms-lab down
"""


def main() -> None:
    """Run one command."""
    arguments = _parser().parse_args()
    try:
        status = arguments.run(arguments) if os.geteuid() == 0 or not arguments.needs_cell else _in_cell(arguments)
        sys.stdout.flush()
    except LdomsError as error:
        sys.exit(f"ldoms-lab: {error.message}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone, as `ldoms-lab status | head` does; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _in_cell(arguments: argparse.Namespace) -> int:
    """Without root: the same command in the namespaces of its lab."""
    if arguments.run is _status and arguments.all:
        answers = ask_all_cells("status", *(["--json"] if arguments.json else []))
        merged = [lab for answer in answers for lab in json.loads(answer)] if arguments.json else []
        print(json.dumps(merged, indent=2) if arguments.json else "".join(answers), end="\n" if arguments.json else "")
        return 0
    try:
        return run_in_cell(arguments.lab, make=arguments.run is _up)
    except NotFound:
        if arguments.run is _down and arguments.force:
            return 0
        raise


def _up(arguments: argparse.Namespace) -> int:
    plan = lab.HostPlan(arguments.strands_per_cpu, arguments.confine, arguments.memory)
    made = lab.up(arguments.lab, arguments.hosts, plan, _say)
    _say(f"lab {made.name} is up: {', '.join(made.hosts)}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    if not arguments.force:
        lab.down(arguments.lab)
    else:
        with contextlib.suppress(NotFound):
            lab.down(arguments.lab)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    known = [lab.load(arguments.lab)] if arguments.lab in lab.names() or not arguments.all else []
    if arguments.all:
        known = [lab.load(name) for name in lab.names()]
    if arguments.json:
        print(json.dumps([_describe(one) for one in known], indent=2))
        return 0
    for one in known:
        print(f"lab {one.name} ({one.directory})")
        for host in _describe(one)["hosts"]:
            manager = f"ldmd {host['manager']}" if host["manager"] else "ldmd is not running"
            print(f"    {host['name']:<8} {host['address']:<12} {manager:<22} link {host['link']}")
            for domain in host["domains"]:
                print(f"             {domain['name']:<16} {domain['state']:<10} {domain['flags']}")
    return 0


def _describe(one: lab.Lab) -> dict[str, Any]:
    hosts = []
    for host in one.hosts:
        process = lab.manager_process(one, host) if one.space(host).is_alive else None
        domains = []
        if process is not None:
            with contextlib.suppress(LdomsError):
                domains = [
                    {
                        "name": view["domain"]["name"],
                        "state": view["status"]["state"],
                        "flags": view["status"]["flags"],
                    }
                    for view in one.client(host).get("/domains")
                ]
        hosts.append(
            {
                "name": host,
                "address": one.address(host),
                "manager": process.pid if process is not None else None,
                "link": str(one.shapes.get(host, Shape())),
                "domains": domains,
            }
        )
    return {"name": one.name, "directory": one.directory, "password_file": str(one.password_file), "hosts": hosts}


def _exec(arguments: argparse.Namespace) -> int:
    one = lab.load(arguments.lab)
    words = one.space(arguments.host).command(arguments.words)
    os.execvpe(words[0], words, one.environment(arguments.host))  # noqa: S606


def _shape(arguments: argparse.Namespace) -> int:
    one = lab.load(arguments.lab)
    wanted = Shape(
        rate_bit_s=parse_rate(arguments.rate) if arguments.rate else 0,
        delay_s=parse_delay_s(arguments.delay) if arguments.delay else 0.0,
        loss=parse_loss(arguments.loss) if arguments.loss else 0.0,
        cut=Cut(arguments.cut),
    )
    changed = lab.shape(one, arguments.host, wanted)
    for host in changed.hosts:
        _say(f"{host}: {changed.shapes.get(host, Shape())}")
    return 0


def _ldmd(arguments: argparse.Namespace) -> int:
    one = lab.load(arguments.lab)
    if arguments.action in ("stop", "kill", "restart"):
        lab.stop_manager(one, arguments.host, kill=arguments.action == "kill")
    if arguments.action in ("start", "restart"):
        lab.start_manager(one, arguments.host)
    return 0


def _power(arguments: argparse.Namespace) -> int:
    one = lab.load(arguments.lab)
    if arguments.action in ("off", "cycle"):
        lab.power_off(one, arguments.host)
    if arguments.action in ("on", "cycle"):
        lab.power_on(one, arguments.host)
    return 0


def _guest(arguments: argparse.Namespace) -> int:
    one = lab.load(arguments.lab)
    address = add_guest(
        one,
        arguments.domain,
        arguments.image,
        host=arguments.host,
        vcpus=arguments.vcpus,
        memory=arguments.memory,
        parameters=dict(entry.partition("=")[::2] for entry in arguments.parameter),
        user_data=_user_data(arguments.user_data),
        progress=_say,
    )
    own = arguments.image not in images.IMAGES
    _say(f"LDom {arguments.domain} has the address {address}{', if its image runs cloud-init' if own else ''}")
    return 0


def _user_data(path: str) -> str:
    try:
        return Path(path).read_text() if path else NOTHING_MORE
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the user data in {path} cannot be read: {error}", code="no-user-data") from error


def _image(arguments: argparse.Namespace) -> int:
    if arguments.action == "list":
        if arguments.json:
            print(json.dumps([_describe_image(image) for image in images.cached()], indent=2))
            return 0
        for image in images.cached():
            print(f"{image.name:<10} {format_size(image.size_bytes >> 20 << 20):>6}  {image.directory}")
    elif arguments.action == "build":
        for name in arguments.names or images.IMAGES:
            images.build(name, _say, fresh=arguments.fresh)
    else:
        freed = images.clean(arguments.names)
        _say(f"{freed >> 20} MiB freed")
    return 0


def _describe_image(image: images.Image) -> dict[str, Any]:
    return {
        "name": image.name,
        "is_current": image == images.find(image.name),
        "kernel": str(image.kernel),
        "initrd": str(image.initrd),
        "disk": str(image.disk) if image.disk else None,
        "boot_args": image.boot_args,
    }


def _say(line: str) -> None:
    print(f"ldoms-lab: {line}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ldoms-lab",
        description="Hosts as network namespaces on one machine, each with its own ldmd.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lab", default=lab.DEFAULT_NAME, metavar="NAME", help="which lab (default: %(default)s)")
    parser.set_defaults(needs_cell=True)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    up = verbs.add_parser("up", help="make a lab, or mend it")
    up.add_argument("--hosts", type=int, default=2, metavar="N", help="default: %(default)s")
    up.add_argument("--strands-per-cpu", type=int, default=0, metavar="N", help="default: so many that there are eight")
    up.add_argument("--confine", action="store_true", help="domains run on their strands only")
    up.add_argument(
        "--memory",
        default="",
        metavar="SIZE",
        help="of each host, to partition (default: 8G, or a share of a small machine)",
    )
    up.set_defaults(run=_up)

    down = verbs.add_parser("down", help="take a lab away, with everything in it")
    down.add_argument("-f", dest="force", action="store_true", help="say nothing if it is not there")
    down.set_defaults(run=_down)

    status = verbs.add_parser("status", help="show hosts, managers, links and domains")
    status.add_argument("-a", dest="all", action="store_true", help="of all labs")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)

    execute = verbs.add_parser("exec", help="run a command on a host, or as a client")
    execute.add_argument("host", metavar="HOST", help="t4-1, t4-2, ..., client or switch")
    execute.add_argument("words", nargs="+", metavar="-- COMMAND")
    execute.set_defaults(run=_exec)

    shape = verbs.add_parser("shape", help="change a link; what is not given is as fast and sound as can be")
    shape.add_argument("host", nargs="?", default="", metavar="HOST", help="its link (default: that between all hosts)")
    shape.add_argument("--rate", metavar="RATE", help="such as 200mbit or 1gbit")
    shape.add_argument("--delay", metavar="TIME", help="one way, such as 5ms")
    shape.add_argument("--loss", metavar="SHARE", help="of packets, such as 0.5%%")
    shape.add_argument("--cut", choices=[cut.value for cut in Cut], default="none", help="what does not get through")
    shape.set_defaults(run=_shape)

    daemon = verbs.add_parser("ldmd", help="start or stop the manager of a host")
    daemon.add_argument("action", choices=("start", "stop", "restart", "kill"))
    daemon.add_argument("host", metavar="HOST")
    daemon.set_defaults(run=_ldmd)

    power = verbs.add_parser("power", help="take the power from a host at once, with all that runs on it, or give it")
    power.add_argument("action", choices=("off", "on", "cycle"))
    power.add_argument("host", metavar="HOST")
    power.set_defaults(run=_power)

    guest = verbs.add_parser("guest", help="make a domain from an image, bound and ready to start")
    guest.add_argument("domain", metavar="DOM")
    guest.add_argument("image", metavar="IMAGE", help=f"{' or '.join(images.IMAGES)}, or the path of your own image")
    guest.add_argument("--host", default="t4-1", help="default: %(default)s")
    guest.add_argument("--vcpus", type=int, default=0, metavar="N", help="default: what the image needs")
    guest.add_argument("--memory", default="", metavar="SIZE", help="default: what the image needs")
    guest.add_argument(
        "-P",
        dest="parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="kernel argument, for an image of ours",
    )
    guest.add_argument(
        "--user-data", default="", metavar="FILE", help="what cloud-init shall do, for an image of your own"
    )
    guest.set_defaults(run=_guest)

    image = verbs.add_parser("image", help="build, list or clean guest images")
    image.add_argument("action", choices=("build", "list", "clean"))
    image.add_argument("names", nargs="*", metavar="IMAGE", help=f"of {', '.join(images.IMAGES)} (default: all)")
    image.add_argument("--fresh", action="store_true", help="build although one is there, as for newer packages")
    image.add_argument("--json", action="store_true", help="of a list: the files, and which image is the current one")
    image.set_defaults(run=_image, needs_cell=False)
    return parser
