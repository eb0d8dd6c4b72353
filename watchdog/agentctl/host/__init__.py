"""The machine's own parts, one module each: processes, the journal, mounts, disks, terminals."""
