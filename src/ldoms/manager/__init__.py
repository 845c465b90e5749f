"""The verbs of a host: what `ldm` asks for, carried out on domains, services and resources."""
