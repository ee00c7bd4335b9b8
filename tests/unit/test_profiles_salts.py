"""The salt: a secret for real logs, one and the same for what is made with it, and readable by its owner only."""

from __future__ import annotations

import base64
import os
import random
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from rlhi_dagster import profiles
from rlhi_dagster.forgetting import tombstones
from rlhi_dagster.profiles import ProfileError, salts

SAMPLE_LOGS = profiles.ROOT / "data" / "sample" / "wildchat.parquet"
SHIPPED = profiles.ROOT / "rlhi_dagster" / "profiles"
SECRET = "2f6b0c9d41e87a35f01d9c62be7408a35d13f6e29b70c48a"
WEAK = [
    *(" ", "\t\n", "x", "salt", "pepper", "a secret of yours", "the-town-is-public", "the-village-is-public", "The Town Is Public"),
    *("change-me-please-1234", "password123456789012345", "secret" * 20, "a" * 64, "ab" * 40, "0123456789abcdef" * 4, "1" * 64),
    *("qwertyuiopasdfghjklzxcvbnm", "abcdefghijklmnopqrstuvwxyz0123456789", "00000000-0000-0000-0000-000000000000", "hunter2" * 9),
    *("2026-11-29T00:00:00Z", "my-company-salt-2026", "correct horse battery staple", "your secret salt here, please change this"),
]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("RLHI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))


@pytest.mark.parametrize("weak", WEAK)
@pytest.mark.parametrize("name", ["laptop", "paper", "sample"])
def test_no_real_logs_are_read_with_a_salt_that_can_be_guessed(name: str, weak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = profiles.load(name, str(SAMPLE_LOGS))
    monkeypatch.setenv("RLHI_SALT", weak)
    with pytest.raises(ProfileError, match=r"RLHI_SALT is no secret .*openssl rand -hex 32"):
        profiles.salt(profile)


def test_what_is_drawn_by_lot_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(7)
    for _ in range(300):
        for made in (drawn.randbytes(32).hex(), drawn.randbytes(16).hex(), base64.b64encode(drawn.randbytes(24)).decode()):
            salts.check_secret(made, "RLHI_SALT")
        salts.check_secret(str(uuid.UUID(bytes=drawn.randbytes(16))), "RLHI_SALT")
    monkeypatch.setenv("RLHI_SALT", SECRET)
    assert profiles.salt(profiles.load("paper")) == SECRET


def test_only_a_simulation_has_a_public_salt(tmp_path: Path) -> None:
    assert profiles.salt(profiles.load("sample")) == "the-town-is-public"
    assert profiles.salt(profiles.load("village")) == "the-village-is-public"
    settings = yaml.safe_load((SHIPPED / "sample.yaml").read_text())
    file, logs = tmp_path / "copied.yaml", tmp_path / "logs"
    for location in (str(logs / "*.parquet"), "hf://datasets/acme/logs/data/sample/wildchat.parquet", "data/sample/../village/x.parquet"):
        settings["source"]["location"] = location
        file.write_text(yaml.safe_dump(settings))
        with pytest.raises(ProfileError, match="truth: null, and set RLHI_SALT to a secret"):
            profiles.load(str(file))
    settings["truth"] = None
    settings["models"] |= {"pair_judge": "rule", "judge": {"hub": f"acme/judge@{'a' * 40}"}}
    file.write_text(yaml.safe_dump(settings))
    drawn = profiles.salt(profiles.load(str(file)))
    assert len(drawn) == 64
    assert drawn not in ("the-town-is-public", SECRET)


def test_the_file_of_a_kept_salt_is_its_owners(tmp_path: Path) -> None:
    drawn = salts.kept_secret(tmp_path / "salt")
    assert stat.S_IMODE((tmp_path / "salt").stat().st_mode) == 0o600
    (tmp_path / "salt").chmod(0o644)
    assert salts.kept_secret(tmp_path / "salt") == drawn
    assert stat.S_IMODE((tmp_path / "salt").stat().st_mode) == 0o600
    for text, message in (("", "is empty"), ("guess me", "salt is no secret")):
        (tmp_path / "salt").write_text(text)
        with pytest.raises(ProfileError, match=message):
            salts.kept_secret(tmp_path / "salt")


def test_tables_are_made_with_one_salt(tmp_path: Path) -> None:
    assert salts.recorded(tmp_path / "lake") is None
    salts.keep(tmp_path / "lake", SECRET)
    salts.keep(tmp_path / "lake", SECRET)
    assert salts.recorded(tmp_path / "lake") == salts.fingerprint(SECRET)
    with pytest.raises(ProfileError, match=r"made with another salt .* set RLHI_SALT to what it was"):
        salts.keep(tmp_path / "lake", SECRET[::-1])
    written = (tmp_path / "lake" / salts.RECORD).read_text()
    assert SECRET not in written
    assert len(written) == 16
    (tmp_path / "lake" / salts.RECORD).write_text("")  # a disk that was full
    salts.keep(tmp_path / "lake", SECRET)
    assert [file.name for file in (tmp_path / "lake").iterdir()] == [salts.RECORD]


def test_a_tombstone_of_another_salt_lets_nobody_back_in(tmp_path: Path) -> None:
    ann, bob = "a1" * 16, "b2" * 16
    tombstones.add(tmp_path, ann)  # as older files have them
    tombstones.add(tmp_path, bob, salts.fingerprint(SECRET))
    assert set(tombstones.read(tmp_path, SECRET)) == {ann, bob}
    assert set(tombstones.read(tmp_path)) == {ann, bob}
    with pytest.raises(ValueError, match=rf"1 of 2 tombstones, that of {bob} the first, were made with another salt"):
        tombstones.read(tmp_path, SECRET[::-1])


def test_forgetting_notes_the_salt_of_the_tables(
    rlhi: Callable[..., CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salts.keep(tmp_path / "lake", SECRET)
    done = rlhi(tmp_path, "forget", "c3" * 16, "--yes")
    assert done.returncode == 0, done.stderr
    with pytest.raises(ValueError, match="another salt"):
        tombstones.read(tmp_path, SECRET[::-1])
    assert "c3" * 16 in tombstones.read(tmp_path, SECRET)


@pytest.mark.parametrize("name", ["../../x", "../sample", "/etc/x", "", ".", "sample/../../x", "x\x00y"])
def test_a_profile_leads_to_no_other_folder_and_no_other_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.yaml").write_text("extends: sample\n")
    monkeypatch.setattr(profiles.files, "_packaged", lambda: tmp_path / "a" / "b")
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(ProfileError, match="no such profile"):
        profiles.load(name)
    with pytest.raises(ProfileError, match="no such profile"):
        profiles.data_root(os.environ | {"RLHI_PROFILE": name})
