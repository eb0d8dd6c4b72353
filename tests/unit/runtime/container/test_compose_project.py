"""Which files of the repository look as if they counted, and do not."""

from types import SimpleNamespace

from agentctl.runtime.container import compose_project


def seen_by(tmp_path, **files):
    code, config = tmp_path / "code", tmp_path / "config"
    for name, text in files.items():
        (code / name.replace("__", ".").replace("_", "-")).write_text(text)
    settings = SimpleNamespace(compose=SimpleNamespace(file=str(config / "compose.yaml")))
    return SimpleNamespace(config=settings, code_dir=str(code), paths=SimpleNamespace(data_dir=str(tmp_path)))


def test_only_what_was_changed_since_adoption_and_does_not_count_is_told(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "config").mkdir()
    (tmp_path / "config/compose.yaml").write_text("services: admin")
    (tmp_path / "config/.env").write_text("A=1")
    context = seen_by(tmp_path, compose__yaml="services: own")
    compose_project.remember_files(context)
    assert compose_project.strays(context) == ""
    seen_by(tmp_path, compose__yaml="services: evil")
    assert (
        compose_project.strays(context) == "compose.yaml in the agent's repository was changed; it is not used: "
        f"what counts is in {tmp_path}/config"
    )
    seen_by(tmp_path, compose__yaml="services: admin", __env="A=1")
    assert compose_project.strays(context) == ""
    seen_by(tmp_path, __env="A=2")
    (tmp_path / "code/docker-compose.yml").symlink_to("/etc/shadow")
    assert compose_project.strays(context).startswith(
        "docker-compose.yml and .env in the agent's repository were changed"
    )
