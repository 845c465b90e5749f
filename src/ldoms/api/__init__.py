"""The API of a host: HTTP and JSON, on a Unix socket for its own users and over TLS for other hosts."""
