"""The injection kit: tools that break things at a chosen moment, and that tell whether anything was lost.

- `manifest`: what is in a folder, to the byte; and what of it is missing afterwards
- `survival`: how many points each fault family tried, and the table of it in docs/survival.md
"""
