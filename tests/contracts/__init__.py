"""What an implementation of each interface must do, fake or real: the same checks run on both."""
