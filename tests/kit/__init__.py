"""The injection kit: tools that break things at a chosen moment, and that tell whether anything was lost.

- `manifest`: what is in a folder, to the byte; and what of it is missing afterwards
- `syscall_injection`: the Nth system call of a program or its children is killed or fails
- `survival`: how many points each fault family tried, and the table of it in docs/survival.md
- `line_killer`: SIGKILL at the Nth executed line, or after the Nth call to the outside, in a forked child
- `exploration`: a whole family of such points, N counting up, some in pairs; several worlds side by side
- `acknowledged`: what a killed run had acknowledged, replayed, must be the ledger on disk
"""
