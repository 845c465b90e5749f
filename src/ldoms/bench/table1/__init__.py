"""Table 1 of the paper: how long a migration takes with more or fewer CPUs of the control domain."""
