"""What is seen of a domain while it moves: from its hosts, from inside it, and by its clients, on one axis of time.

``watch.py`` runs on each host and writes what that host sees (`lines.py`: the form); ``hosts.py`` starts it there and
reads it; ``usage.py``, ``mpstat.py`` and ``series.py`` make figures of each second of it, without input or output;
``observation.py`` puts all of it together, with the probes from outside.
"""
