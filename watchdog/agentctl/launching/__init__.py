"""What belongs to one launch, before and with it: the try, the state, the room on the disk, the environment."""
