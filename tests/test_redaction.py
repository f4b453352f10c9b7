"""What is typed as a secret is neither kept nor shown."""

import shlex

import pytest

from tokensearch.redaction import hide_secrets, redact, redact_command

SECRET = "s3cret-W0rd"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:{}@host:5432/studies",
        "postgresql+psycopg://me:a:/b{}@host/studies",
        "mysql://:{}@host",
        "redis://me:1{}@host:6379/0",
        "--storage=postgresql://me:{}@host/studies",
        "https://host/data.tar?X-Amz-Credential={}&X-Amz-Signature={}",
        "https://host/blob?sv=2024&sig={}",
        "hfds/me/pictures?token={}&split=test",
        "HF_TOKEN={}",
        "--password=ab,{}",
        "DefaultEndpointsProtocol=https;AccountKey={}==;EndpointSuffix=here",
        "postgresql://me:a@{}@host/studies",
        "PGPASSWORD='{}'",
        "git+https://{}@host/repository.git",
        "https://host/weights.pth?key={}&part=1",
        "https://host/weights.pth?part=1&pass={}",
        "--password={}",
        "--api-key {}=",
        '{{"password": "{}", "user": "me"}}',
        "Authorization: Bearer {}",
        "hf_abcdefghijklmnop{}",
        "(OperationalError) cannot connect to postgresql://me:{}@host/a and mysql://me:{}@host/b",
    ],
)
def test_a_secret_is_hidden_wherever_it_stands(text: str) -> None:
    said = text.replace("{}", SECRET).replace("{{", "{").replace("}}", "}")
    said = redact_command(shlex.split(said)) if said.startswith("--api-key") else hide_secrets(said)

    assert SECRET not in said
    assert "***" in said
    assert "host" in said or "host" not in text  # the rest can still be read


@pytest.mark.parametrize(
    "text",
    [
        "tokensearch run --model deit_s --latency-target 0.5x --data /data/images --seed 3",
        "key=4 pass=2 https://host/@scope/name?passes=3 postgresql://me@host",
        "--model hf-hub:timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
        "https://host:8080/path?patch_tokens=196&class_token=True",
        "patch tokens 196=14*14; secretary=me; me@host; postgresql://host:5432/studies",
        "the policy has patch_tokens=196, this one has 'tokens': 49",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide_secrets(text) == text
    assert redact_command(text.split(" ")) == shlex.join(text.split(" "))


@pytest.mark.parametrize("joint", [["--password", "a {}"], ["--password=a {}"]])
def test_a_secret_with_a_space_is_hidden_to_its_end(joint: list[str]) -> None:
    assert SECRET not in redact_command([one.format(SECRET) for one in joint])


def test_a_text_full_of_beginnings_is_read_once() -> None:
    endless = "://:" * 100_000  # the square of this would take half an hour

    assert hide_secrets(endless) == endless
    assert hide_secrets(f"{endless}@host") == "://:***@host"


def test_the_value_of_an_option_is_hidden_in_a_command_that_can_still_be_split() -> None:
    typed = ["tokensearch", "run", "--password", f"{SECRET} with space", "--out", "my run"]

    kept = redact_command(typed)

    assert shlex.split(kept) == ["tokensearch", "run", "--password", "***", "--out", "my run"]


def test_a_document_is_redacted_at_any_depth_and_else_stays() -> None:
    document = {
        "settings": {"data": f"hfds/me/pictures?token={SECRET}", "seed": 3, "checkpoint": None},
        "cautions": [f"no route to postgresql://me:{SECRET}@host"],
        "ratio": 0.5,
    }

    assert redact(document) == {
        "settings": {"data": "hfds/me/pictures?token=***", "seed": 3, "checkpoint": None},
        "cautions": ["no route to postgresql://me:***@host"],
        "ratio": 0.5,
    }
