"""Back ends of virtual disks: `storage` is the interface, `files` the real thing."""
