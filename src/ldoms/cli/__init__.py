"""``ldm``: parse, call the manager, print. The table of commands is the one source of help, man page and parser."""
