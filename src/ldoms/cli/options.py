"""Options that several commands share."""

from __future__ import annotations

from ldoms.cli.command import Option

FORCE = Option("-f", "accepted for scripts of LDoms; it changes nothing here")
JSON = Option("--json", "print JSON instead of text (ours)")
PARSE = Option("-p", "print for programs: VERSION, then KEYWORD|key=value lines")
LONG = Option("-l", "print everything")
HEALTH = Option("-S", "say of cores, CPUs and memory how they are")
EXTENDED = Option("-e", "print everything, automatic devices too")
QUICK = Option("-q", "do not look at the back end now")
UNUSED = Option("-f", "also if an inactive domain asks for it")
