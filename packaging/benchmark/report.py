"""Turn what was measured into the table, and put the table into the document between its markers. Pure but for that."""

import itertools
from statistics import median

BEGIN, END = "<!-- measured: written by packaging/bench -->", "<!-- /measured -->"
ROW_NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8]


class Row:
    """One line: what was measured, what with, what should come out."""

    def __init__(self, number, what, ours, against, other, ratio, target):
        self.number, self.what, self.against = number, what, against
        self.ours, self.other, self.ratio, self.target = ours, other, ratio, target

    @property
    def is_met(self):
        return self.ratio is not None and self.ratio <= self.target


def rows_of(measured):
    """Return the rows that were asked for; a side that was not measured is None."""
    samples, limit = measured["samples"], measured["watchdog_seconds"]
    mid = {name: median(values) for name, values in samples.items() if isinstance(values, list) and values}
    idle = samples.get("idle", {})
    pss = {name: median(found["pss"]) for name, found in idle.items()}
    crash = "crash of a candidate out of tries -> ready on the last good code with its state"
    hang = mid.get("hang")
    rows = [
        compare(1, crash, mid.get("rollback"), "`OnFailure=` -> shell: `git checkout -f`, start in tmux",
                mid.get("floor"), 2.0),
        compare(2, "the same", mid.get("rollback"), "supervisord: plain restart of a crashed program",
                mid.get("supervisord"), 0.25),
        compare(3, "the same, 100,000 files in the repository", mid.get("rollback large"), "100 files",
                mid.get("rollback"), 1.3),
        compare(4, "crash of good code -> ready again (plain restart)", mid.get("restart"),
                "systemd `Restart=always RestartSec=0`, same tmux agent", mid.get("plain"), 4),
        Row(5, "hang right after a heartbeat -> ready on the last good code", seconds(hang), f"`WatchdogSec={limit}`",
            f"{limit} s", hang and hang / limit, (1.1 * limit + 1) / limit),
        Row(6, "idle: runner, tmux server, pane reader: PSS", mebi(pss.get("small")), "supervisord",
            mebi(pss.get("supervised")), divide(pss.get("small"), pss.get("supervised")), 1.2),
        cpu_row(idle),
        compare(7, "`agentctl status`", mid.get("status"), "`python -c pass`, same interpreter", mid.get("pass"), 5),
        compare(8, "second snapshot of 1 GiB in 10,000 files, 1 % changed", mid.get("second snapshot"), "the first",
                mid.get("first snapshot"), 0.15),
    ]  # fmt: skip
    return [row for row in rows if row.number in measured["rows"]]


def compare(number, what, ours, against, other, target):
    return Row(number, what, seconds(ours), against, seconds(other), divide(ours, other), target)


def cpu_row(idle):
    """CPU has no ratio: the target is a share of one core, whatever supervisord takes."""
    cpu = {name: found["cpu"] for name, found in idle.items()}
    row = Row(6, "idle: the same: CPU of one core", percent(cpu.get("small")), "supervisord",
              percent(cpu.get("supervised")), cpu.get("small"), 0.1)  # fmt: skip
    row.form = percent
    return row


def render(measured):
    """Return the markdown that stands between the markers."""
    lines = [describe(measured), "", "| | What | agentctl | Compared with | | Ratio | To reach | |", "|---" * 8 + "|"]
    for row in rows_of(measured):
        form = getattr(row, "form", times)
        verdict = "not measured" if row.ratio is None else "yes" if row.is_met else "**no**"
        lines.append(f"| {row.number} | {row.what} | {row.ours} | {row.against} | {row.other} | {form(row.ratio)} "
                     f"| <= {form(row.target)} | {verdict} |")  # fmt: skip
    lines += ["", of_quickest(measured["samples"])]
    for name in ("rollback", "restart"):
        pair = [median(measured["samples"].get(which) or [0]) for which in (name, f"{name} variant")]
        if all(pair):
            lines += ["", f"{name}: {seconds(pair[0])}, variant {seconds(pair[1])}, {times(pair[1] / pair[0])}"]
    for name, why in measured["failed"].items():
        lines += ["", f"**{name} failed**: {why.splitlines()[0]}"]
    if parts := measured["samples"].get("idle", {}).get("small", {}).get("parts"):
        lines += ["", "PSS of row 6 in MiB: " + ", ".join(f"{name} {size}" for name, size in parts.items()) + "."]
    titles = {"rollback": "Row 1, agentctl", "floor": "Row 1, shell script", "restart": "Row 4, agentctl",
              "rollback variant": "Row 1, the variant", "restart variant": "Row 4, the variant",
              "rollback large": "Row 3, agentctl with 100,000 files"}  # fmt: skip
    for name, title in titles.items():
        if rounds := measured["timelines"].get(name):
            lines += ["", *time_table(title, rounds)]
    return "\n".join(lines)


def describe(measured):
    facts = measured["facts"]
    spread = [f"{name} {min(values) * 1000:.0f}-{max(values) * 1000:.0f} ms"
              for name, values in measured["samples"].items() if isinstance(values, list) and values]  # fmt: skip
    supervisor = f", supervisor {facts['supervisor']}" if facts["supervisor"] else ""
    return (f"Medians of {measured['rounds']} interleaved rounds on {facts['cores']} cores ({facts['machine']}), "
            f"kernel {facts['kernel']}, systemd {facts['systemd']}, tmux {facts['tmux']}, git {facts['git']}, "
            f"Python {facts['python']}{supervisor}; code, state and data on ext4 (loop device over memory). "
            f"Load before the run: {measured['load']:.1f}. Smallest and largest: {', '.join(spread)}.")  # fmt: skip


def of_quickest(samples):
    """Say the ratios of the quickest rounds too: what others do on the machine only ever adds time."""
    pairs = {1: ("rollback", "floor"), 2: ("rollback", "supervisord"), 3: ("rollback large", "rollback"),
             4: ("restart", "plain"), 7: ("status", "pass"), 8: ("second snapshot", "first snapshot")}  # fmt: skip
    told = [f"row {number} {times(min(samples[ours]) / min(samples[other]))}"
            for number, (ours, other) in pairs.items() if samples.get(ours) and samples.get(other)]  # fmt: skip
    return f"Ratios of the quickest rounds: {', '.join(told)}." if told else ""


def time_table(title, rounds):
    """Show where the time goes: the median of each stretch, and when it was over on average."""
    complete = max(rounds, key=len)
    names = [name for name, _ in complete]
    rounds = [dict(marks) for marks in rounds if [name for name, _ in marks] == names]
    lines = [f"{title}: where the time goes (ms, medians)", "", "| Until | took | at |", "|---|---|---|"]
    for before, name in itertools.pairwise(names):
        took = median(marks[name] - marks[before] for marks in rounds)
        at = median(marks[name] - marks[names[0]] for marks in rounds)
        lines.append(f"| {name} | {took * 1000:.1f} | {at * 1000:.1f} |")
    return lines


def write(path, text):
    """Replace what stands between the markers."""
    document = path.read_text()
    head, rest = document.split(BEGIN, 1)
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")


def divide(ours, other):
    return ours / other if ours and other else None


def times(ratio):
    return "-" if ratio is None else f"{ratio:.2f}x"


def percent(value):
    return "-" if value is None else f"{value:.3f} %"


def mebi(value):
    return "-" if value is None else f"{value:.1f} MiB"


def seconds(value):
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"
