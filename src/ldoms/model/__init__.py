"""What things are: values and errors, shared by every room, with no input or output."""
