"""Where models come from, and whose word a licence is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiso_ray.tasks.pretrained.origin import Licence, origin, repository_of

OF_CARD = "as the card of the base model states"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (None, None),
        ("# A model without front matter\n", None),
        ("---\nlanguage: en\n---\n", None),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: 'a\n---\n", None),  # no YAML
        ("---\n- a list\n---\n", None),
        ("---\nlicense: mit\n---\n# A model\n", Licence("mit", OF_CARD)),
        (
            "---\nlicense: other\nlicense_name: opt\nlicense_link: LICENSE.md\n---\n",
            Licence("other", OF_CARD, "opt"),  # its file is not beside the export
        ),
        (
            "---\nlicense: other\nlicense_name: opt\nlicense_link: https://a.b/c\n---\n",
            Licence("other", OF_CARD, "opt", "https://a.b/c"),
        ),
    ],
)
def test_a_folder_has_the_licence_of_its_card(
    tmp_path: Path, card: str | None, licence: Licence | None
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    base = origin(str(tmp_path))
    assert (base.name, base.repository, base.licence) == (tmp_path.name, None, licence)


def test_models_that_come_with_a_package() -> None:
    embedded, packaged = origin("opt-reviews"), origin("gemma-3-270m-q4_k_m")
    assert embedded.repository is packaged.repository is None
    assert embedded.licence is not None
    assert embedded.licence.id == "apache-2.0"
    assert packaged.licence is not None
    assert packaged.licence.id == "gemma"
    assert "Gemma Terms of Use" in packaged.licence.source


def test_the_hubs_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        if repository == "a/without":
            raise FileNotFoundError("no such file")
        (tmp_path / file).write_text("---\nlicense: mit\n---\n")
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    base = origin("facebook/opt-125m")
    assert (base.name, base.repository) == ("facebook/opt-125m", "facebook/opt-125m")
    assert base.licence == Licence("mit", OF_CARD)
    assert origin("a/without").licence is None
    assert asked == [("facebook/opt-125m", "README.md"), ("a/without", "README.md")]
    assert repository_of("a/b/c-q4.gguf") == "a/b"
    assert repository_of("gpt2") == "gpt2"
