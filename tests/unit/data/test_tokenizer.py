"""The tokenizer as the model knew it: ids named and not added, sequences one token a character."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from hub_downloads import COMMIT, hub, lay_out
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from galpaca.data.listed_ends import generation_settings
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError

PEPTIDE = "GIGKFLHSAKKFGKAFVGEIMNSGG"  # 25 residues
KINDS = ("DNA", "AMINO", "SMILES", "I_SMILES")


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of OPT's kind: bytes and a few merges, ``</s>`` put in front, no tags of science."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("C", "C"), ("h", "e"), ("Ġ", "t")]
    names = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, *(first + second for first, second in merges)]
    backend = Backend(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
    backend.add_special_tokens(names[:4])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    folder = tmp_path_factory.mktemp("plain")
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="</s>", eos_token="</s>", pad_token="<pad>")
    hf.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(plain_folder: Path) -> Tokenizer:
    return load_tokenizer(str(plain_folder))


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode([tokenizer.mark(text)])[0]


def changed_copy(folder: Path, to: Path, **changes: object) -> str:
    """A copy of a tokenizer with other entries in its tokenizer.json."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    to.mkdir()
    (to / "tokenizer.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")
    (to / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text())
    return str(to)


class TestGalactica:
    def test_special_tokens_are_named_at_the_ids_they_have(self, tokenizer: Tokenizer) -> None:
        hf = tokenizer.hf
        assert (hf.bos_token_id, hf.pad_token_id, hf.eos_token_id, hf.unk_token_id) == (0, 1, 2, 3)
        assert (tokenizer.eos_id, tokenizer.pad_id) == (2, 1)

    def test_nothing_is_added_or_resized(self, tokenizer: Tokenizer, tokenizer_folder: Path) -> None:
        """``add_special_tokens`` gave ids beyond the embedding, and resizing it changed the model."""
        stored = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
        added = {token["content"]: token["id"] for token in stored["added_tokens"]}
        assert tokenizer.hf.get_vocab() == {**stored["model"]["vocab"], **added}
        assert tokenizer.hf.get_added_vocab() == added
        assert tokenizer.vocab_size == 1 + max({**stored["model"]["vocab"], **added}.values()) == len(tokenizer.hf)

    def test_nothing_is_put_around_a_text(self, tokenizer: Tokenizer) -> None:
        assert not {0, 1, 2, 3} & set(ids(tokenizer, "Name a gas."))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("sequence", ["C(C(=O)O)N", "water of the", "the\nwater\r\nthe"])
    def test_a_sequence_is_one_token_a_character(self, tokenizer: Tokenizer, kind: str, sequence: str) -> None:
        """A small vocabulary has words and no peptides: only words show that it is not read in pieces anyway."""
        found = tokenizer.pieces(ids(tokenizer, f"[START_{kind}]{sequence}[END_{kind}]"))
        assert found == [f"[START_{kind}]", *sequence, f"[END_{kind}]"]

    def test_a_peptide_of_25_residues_is_27_tokens_with_its_tags(self, shared_data: Path) -> None:
        """Skipping the split costs 2.9 nats a token on proteins."""
        tokenizer = load_tokenizer(str(shared_data / "galactica_tokenizer"))
        tagged = f"[START_AMINO]{PEPTIDE}[END_AMINO]"
        assert len(ids(tokenizer, tagged)) == 27
        assert len(tokenizer.encode([tagged])[0]) < 20

    @pytest.mark.parametrize(
        ("prompt", "answer"),
        [
            ("Go on: [START_AMINO]the water", " of the[END_AMINO]."),
            ("Go on: [START_AMINO]the wat", "er of the[END_AMINO]."),
            ("Go on:\n[START_SMILES]the\nwater", "\nthe[END_SMILES]\n"),
            ("[START_DNA]", "the water[END_DNA]"),
            ("[START_DNA]the water", "[END_DNA]"),
            ("[START_DNA]the water[END_DNA]", " is a sequence."),
            ("[START_DNA]the water[END_DNA] [START_AMINO]the", " water[END_AMINO]"),
        ],
    )
    def test_a_prompts_tokens_are_the_first_of_the_whole(self, tokenizer: Tokenizer, prompt: str, answer: str) -> None:
        """Marked alone, a prompt whose sequence ends in the answer is read in word pieces: fewer tokens were ignored
        than the prompt has in the whole text, and some of it carried loss.
        """
        marked = tokenizer.mark(prompt)
        [alone, whole] = tokenizer.encode([marked, marked + tokenizer.mark(answer, before=[prompt])])
        assert whole[: len(alone)] == alone
        assert tokenizer.hf.decode(alone) == prompt

    @pytest.mark.parametrize(
        "text", ["[START_AMINO] or [START_DNA]", "the water[END_AMINO]", "[START_REF]the water[END_REF]"]
    )
    def test_what_is_no_closed_sequence_is_read_as_any_text(self, tokenizer: Tokenizer, text: str) -> None:
        assert ids(tokenizer, text) == tokenizer.encode([text])[0]

    def test_a_text_with_the_marker_loses_it(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.decode(ids(tokenizer, f"a{SPLIT_MARKER}b")) == "ab"

    @pytest.mark.parametrize("text", ["x²", "10⁻³", "H₂O", "ﬁne", "e\u0301"])
    def test_texts_that_nfkc_changes(self, tokenizer: Tokenizer, text: str) -> None:
        assert tokenizer.changes(text)

    @pytest.mark.parametrize("text", ["x^2", "é", "水", "α → β", "", "10−3"])
    def test_texts_that_nfkc_leaves(self, tokenizer: Tokenizer, text: str) -> None:
        assert not tokenizer.changes(text)

    def test_decoding_keeps_what_science_needs(self, tokenizer: Tokenizer) -> None:
        """``skip_special_tokens`` deletes citations and molecules, and cleaning up eats the spaces of a formula."""
        text = "See [START_REF]a , b .[END_REF], <work> 1 + 1 </work> [START_SMILES]CCO[END_SMILES] 'm n't ."
        assert tokenizer.decode([*ids(tokenizer, text), tokenizer.eos_id, tokenizer.pad_id]) == text

    def test_pieces_are_the_text_of_each_token(self, tokenizer: Tokenizer) -> None:
        given = ids(tokenizer, "Name a gas.\n")
        assert len(tokenizer.pieces(given)) == len(given)
        assert "".join(tokenizer.pieces(given)) == "Name a gas.\n"


class TestPlain:
    """A tokenizer of OPT's kind keeps its own habits."""

    def test_what_it_puts_in_front_stays(self, plain: Tokenizer) -> None:
        assert plain.encode(["the", ""]) == [[2, *plain.hf.encode("the", add_special_tokens=False)], [2]]

    @pytest.mark.parametrize("text", ["[START_AMINO]CCCC[END_AMINO]", "[START_DNA]C\nC[END_DNA]"])
    def test_it_splits_nothing(self, plain: Tokenizer, text: str) -> None:
        assert not plain.splits_sequences
        assert plain.mark(text) == text

    def test_the_marker_is_a_text_like_any_other(self, plain: Tokenizer) -> None:
        assert plain.decode(plain.encode([f"C{SPLIT_MARKER}C"])[0]) == f"C{SPLIT_MARKER}C"

    def test_its_special_tokens_stay(self, plain: Tokenizer, plain_folder: Path) -> None:
        assert (plain.hf.bos_token, plain.hf.eos_token, plain.hf.pad_token) == ("</s>", "</s>", "<pad>")
        stored = json.loads((plain_folder / "tokenizer.json").read_text(encoding="utf-8"))
        assert len(plain.hf) == len(stored["model"]["vocab"]) == plain.vocab_size

    def test_it_normalizes_nothing(self, plain: Tokenizer) -> None:
        assert not plain.changes("x²")


@pytest.mark.parametrize("dropped", ["[START_DNA]", "[END_I_SMILES]"])
def test_without_all_tags_nothing_is_split(tokenizer_folder: Path, tmp_path: Path, dropped: str) -> None:
    stored = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = [token for token in stored["added_tokens"] if token["content"] != dropped]
    model = stored["model"]
    vocab = {name.replace(dropped, "[OTHER]"): i for name, i in model["vocab"].items()}
    changed = changed_copy(tokenizer_folder, tmp_path / "t", added_tokens=added, model={**model, "vocab": vocab})
    assert not load_tokenizer(changed).splits_sequences


def test_without_removing_the_marker_nothing_is_split(tokenizer_folder: Path, tmp_path: Path) -> None:
    """Markers would go into the model as text."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = load_tokenizer(changed_copy(tokenizer_folder, tmp_path / "t", pre_tokenizer=byte_level))
    assert not tokenizer.splits_sequences
    assert tokenizer.mark("[START_DNA]AC[END_DNA]") == "[START_DNA]AC[END_DNA]"


def test_a_stored_cut_and_padding_are_switched_off(tokenizer_folder: Path, tmp_path: Path) -> None:
    """A tokenizer.json saved during training carries them, and answers were cut without a count."""
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 1,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    changed = changed_copy(tokenizer_folder, tmp_path / "t", truncation=truncation, padding=padding)
    text = "A gas that is lighter than air."
    assert load_tokenizer(changed).encode([text, "x"]) == load_tokenizer(str(tokenizer_folder)).encode([text, "x"])


class TestFingerprint:
    def test_the_same_wherever_the_tokenizer_lies(
        self, tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path
    ) -> None:
        assert load_tokenizer(changed_copy(tokenizer_folder, tmp_path / "t")).fingerprint == tokenizer.fingerprint

    def test_another_where_it_gives_other_ids(
        self, tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path
    ) -> None:
        """Data encoded with another normalizer was taken from the cache."""
        changed = changed_copy(tokenizer_folder, tmp_path / "t", normalizer={"type": "NFC"})
        assert load_tokenizer(changed).fingerprint != tokenizer.fingerprint


class TestRefusals:
    def refusal(self, path: Path | str) -> InputError:
        with pytest.raises(InputError) as caught:
            load_tokenizer(str(path))
        return caught.value

    def test_a_folder_without_a_tokenizer(self, tmp_path: Path) -> None:
        error = self.refusal(tmp_path)
        assert "no tokenizer.json" in error.what
        assert error.where == str(tmp_path)

    def test_a_tokenizer_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{")
        assert "cannot load the tokenizer" in self.refusal(tmp_path).what

    def test_a_name_that_is_neither_a_folder_nor_in_the_cache(self) -> None:
        assert "model.tokenizer=" in self.refusal("nobody/has-this-tokenizer").fix

    @pytest.mark.parametrize("kept", [["<s>", "<pad>"], []])
    def test_a_vocabulary_without_an_end(self, tmp_path: Path, kept: list[str]) -> None:
        """It was added, with an id that the model's embedding does not have."""
        save_bytes(tmp_path, *kept)
        assert "the tokenizer has no eos_token" in self.refusal(tmp_path).what

    def test_damagedgeneration_settings(self, tmp_path: Path) -> None:
        save_bytes(tmp_path, "</s>")
        (tmp_path / "generation_config.json").write_text('{"eos_token_id": ["</s>"]}')
        assert "cannot read the generation settings" in self.refusal(tmp_path).what
        (tmp_path / "generation_config.json").write_text("[]")
        assert "cannot read the generation settings" in self.refusal(tmp_path).what


def save_bytes(folder: Path, *names: str, around: str = "$A", **special: str) -> None:
    """A tokenizer of bytes, behind tokens of these names."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={name: i for i, name in enumerate([*names, *alphabet])}, merges=[]))
    backend.add_special_tokens(list(names))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokens = [(name, i) for i, name in enumerate(names)]
    backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=tokens)
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)


class TestOtherFamilies:
    """Nothing is added, whatever is missing."""

    NAMES = ("<bos>", "<eos>", "<turn>")

    def test_without_a_pad_it_pads_with_its_end(self, tmp_path: Path) -> None:
        save_bytes(tmp_path, *self.NAMES, eos_token="<eos>")
        tokenizer = load_tokenizer(str(tmp_path))
        assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.end_text) == (1, 1, "<eos>")
        assert tokenizer.vocab_size == len(tokenizer.hf) == 256 + 3
        assert tokenizer.boundary_id == 1, "it has no first token"

    def test_what_a_document_begins_after(self, tmp_path: Path) -> None:
        save_bytes(tmp_path, *self.NAMES, eos_token="<eos>", bos_token="<bos>")
        assert load_tokenizer(str(tmp_path)).boundary_id == 0

    def test_opts_documents_begin_after_their_end(self, tokenizer: Tokenizer, plain: Tokenizer) -> None:
        assert tokenizer.boundary_id == plain.boundary_id == 2

    @pytest.mark.parametrize("around", ["$A <eos>", "<bos> $A <eos>", "<bos> $A"])
    def test_what_it_puts_behind_a_text_is_left_out(self, tmp_path: Path, around: str) -> None:
        """It would stand between a prompt and its answer."""
        save_bytes(tmp_path, *self.NAMES, around=around, eos_token="<eos>", bos_token="<bos>")
        tokenizer = load_tokenizer(str(tmp_path))
        front = [0] if "<bos>" in around else []
        [bare] = tokenizer.encode(["ab"], bare=True)
        assert len(bare) == 2
        assert tokenizer.encode(["ab", ""]) == [front + bare, front]

    def test_all_ends_that_the_model_lists(self, tmp_path: Path) -> None:
        save_bytes(tmp_path, *self.NAMES, eos_token="<eos>")
        assert load_tokenizer(str(tmp_path)).end_ids == (1,)
        (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
        assert load_tokenizer(str(tmp_path)).end_ids == (1, 2)
        (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2}')
        assert load_tokenizer(str(tmp_path)).end_ids == (1, 2)

    def test_a_cached_tokenizer_whose_ends_are_unknown_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No network was as good as a model that lists none, and answers went on behind their ends."""
        folder, cache = tmp_path / "tokenizer", tmp_path / "cache"
        save_bytes(folder, *self.NAMES, eos_token="<eos>")
        (folder / "config.json").write_text('{"model_type": "opt"}')
        lay_out(cache, "you/mine", folder)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(InputError, match="cannot find out which tokens end an answer"):
            load_tokenizer("you/mine")
        none = cache / "models--you--mine" / ".no_exist" / COMMIT
        none.mkdir(parents=True)
        (none / "generation_config.json").touch()
        assert load_tokenizer("you/mine").end_ids == (1,)

    def test_the_hubs_word_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """That there is no such file, which is then known without a network; or what it says."""
        folder, cache = tmp_path / "tokenizer", tmp_path / "cache"
        save_bytes(folder, *self.NAMES, eos_token="<eos>")
        lay_out(cache, "you/mine", folder)
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        with hub({"you/mine": folder}) as (address, requests):
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
            of_files = address + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", of_files)
            assert generation_settings("you/mine") is None
            assert requests
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            assert generation_settings("you/mine") is None
            shutil.rmtree(cache / "models--you--mine" / ".no_exist")
            (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
            found = generation_settings("you/mine")
        assert found is not None
        assert json.loads(found.read_text(encoding="utf-8")) == {"eos_token_id": 2}

    def test_special_tokens_are_its_own(self, tmp_path: Path, tokenizer: Tokenizer) -> None:
        """Tags of GALACTICA are special tokens, too, and belong into texts."""
        save_bytes(tmp_path, *self.NAMES, eos_token="<eos>")
        assert load_tokenizer(str(tmp_path)).special_texts == set(self.NAMES)
        assert tokenizer.special_texts == {"<s>", "</s>", "<pad>", "<unk>"}
