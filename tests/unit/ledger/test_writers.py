"""The writers of the ledger's rows: what each of them changes, and what it leaves as it was."""

from agentctl.ledger import writers

VERDICT = "SELECT status, reason, tries_left, blessed_at IS NULL, condemned_at IS NULL, confirm_by FROM generations"


def test_a_blessing_lifts_a_condemnation_and_the_deadline(home, ask):
    home.generation(1, "condemned", reason="it hung")
    writers.set_deadline(home.ledger, 1, 99.0)
    writers.bless(home.ledger, 1, at=5.0, reason="by hand", snapshot="000007")
    assert ask(VERDICT) == [("good", "by hand", 2, 0, 1, None)]
    assert ask("SELECT blessed_at, snapshot FROM generations") == [(5.0, "000007")]


def test_an_undo_brings_a_condemned_one_back_on_trial(home, ask):
    home.generation(1, "condemned", reason="it hung")
    writers.set_deadline(home.ledger, 1, 99.0)
    writers.bring_back(home.ledger, 1, tries_left=3)
    assert ask(VERDICT) == [("candidate", "brought back by undo", 3, 1, 1, None)]


def test_one_is_golden_at_most(home, ask):
    for number in (1, 2, 3):
        home.generation(number)
    for golden in (2, 3, None, 1):
        writers.set_golden(home.ledger, golden)
        assert ask("SELECT number FROM generations WHERE is_golden") == ([(golden,)] if golden else [])


def test_a_snapshot_that_goes_is_named_by_none_any_more(home, ask):
    for number in (1, 2):
        home.generation(number)
    writers.set_snapshot(home.ledger, 2, "000001")
    writers.forget_snapshot(home.ledger, "000001")
    assert ask("SELECT snapshot FROM generations") == [("",), ("",)]


def test_a_pruned_one_keeps_its_line(home, ask):
    home.generation(1)
    tree = ask("SELECT tree, status FROM generations")
    writers.let_go(home.ledger, 1)
    assert ask("SELECT vault_commit, snapshot FROM generations") == [("", "")]
    assert ask("SELECT tree, status FROM generations") == tree


def test_an_excused_launch_gives_a_try_only_to_who_has_none(home, ask):
    home.generation(1, "candidate")
    home.generation(2, "candidate")
    writers.set_tries(home.ledger, 1, 0)
    for number in (1, 2):
        home.launch(f"L{number}", number, end="failed", trigger="crash")
        writers.excuse_launch(home.ledger, f"L{number}", number)
    assert ask("SELECT number, tries_left FROM generations") == [(1, 1), (2, 2)]
    assert ask("SELECT DISTINCT end FROM launches") == [("stopped",)]


def test_a_launch_that_never_was_ends_as_it_begins(home, ask):
    how = {"at": 5.0, "boot_id": "b", "end": "refused", "trigger": "refused", "reason": "condemned"}
    writers.add_no_launch(home.ledger, "L", 1, **how)
    assert ask("SELECT started_at, ended_at, end, reason FROM launches") == [(5.0, 5.0, "refused", "condemned")]


def test_a_self_restart_that_is_noted_twice_is_counted_once(home, ask):
    for at in (5.0, 6.0):
        writers.note_asked(home.ledger, "L", at=at, target=1, reason="exit status 75")
    assert ask("SELECT incident, number, at, rung, is_open FROM attempts") == [("asked-L", 1, 5.0, "asked", 0)]


def test_requests_are_numbered_and_answered_one_by_one(home, ask):
    numbers = [writers.add_request(home.ledger, "rollback", "", at=float(n), author="me", reason="") for n in range(3)]
    assert numbers == [1, 2, 3]
    writers.answer_request(home.ledger, 2, "I")
    assert ask("SELECT number, incident FROM requests") == [(1, ""), (2, "I"), (3, "")]


def test_after_a_rescue_nothing_is_open_and_what_ended_before_is_as_it_was(home, ask):
    home.generation(1)
    home.launch("L1", end="failed", trigger="crash", at=3.0)
    home.launch("L2")
    home.incident("I")
    home.attempt("I", 1)
    writers.add_attempt(home.ledger, "I", 2, at=4.0, rung="restart", target=1, reason="", is_open=True)
    writers.add_request(home.ledger, "undo", "", at=5.0, author="me", reason="")
    writers.end_all(home.ledger, at=9.0)
    assert ask("SELECT id, end, ended_at FROM launches") == [("L1", "failed", 3.0), ("L2", "lost", 9.0)]
    assert ask("SELECT count(*) FROM attempts WHERE is_open") == [(0,)]
    assert ask("SELECT incident FROM requests") == [("rescued",)]


def test_a_step_is_on_record_before_it_is_done(home, ask):
    writers.begin_step(home.ledger, "I", 1, "switch", at=1.0)
    assert ask("SELECT name, started_at, ended_at, detail FROM steps") == [("switch", 1.0, None, "")]
    writers.end_step(home.ledger, "I", 1, "switch", at=2.0, detail="{}")
    assert ask("SELECT name, started_at, ended_at, detail FROM steps") == [("switch", 1.0, 2.0, "{}")]
