"""The fault matrix: everything that may break in a migration, at every phase and every edge between phases."""
