"""Virtual switches as bridges, virtual networks as taps: `network` is the interface, `linux` the real thing."""
