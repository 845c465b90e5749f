"""Who is asking, and whom to trust: passwords, roles, certificates, tokens."""
