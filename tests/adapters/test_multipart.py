"""Forms: what they say is read from whole forms only, and no form may be read in two ways."""

from __future__ import annotations

import io
import os
import time
from email import message_from_bytes
from email.policy import HTTP
from itertools import pairwise

import pytest
from httpx import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.formparser import MultiPartParser

from lava_adapters import AskError, Quirks, Registry
from lava_adapters.families.media import PICTURE_TOKENS, Media
from lava_adapters.multipart import KEPT_MAX_BYTES, PARTS_MAX, Form, FormReader, read_form
from lava_adapters.sound import UNSEEN_MS
from lava_adapters.weigh import IMAGE_TOKENS

PRICED = frozenset(("model", "stream", "n"))
TYPE = "multipart/form-data; boundary=xyz"
MODEL = b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--xyz\r\n" + part + b"\r\n" for part in parts) + b"--xyz" + end


def part(disposition: str, value: bytes = b"v", more: str = "") -> bytes:
    return f"Content-Disposition: form-data; {disposition}\r\n{more}\r\n".encode() + value


def read(body: bytes, content_type: str = TYPE) -> Form:
    return read_form(content_type, body, PRICED)


def test_a_form_is_read() -> None:
    assert read(form(part('name="model"', b"m", "Content-Length: 1\r\n"))).fields == {"model": "m"}
    got = read(form(MODEL, FILE + b"\0sound\r\n\r\n--xy", part('name="prompt"', b"hello")))
    assert got.fields == {"model": "whisper-1"}
    assert [(file.name, file.size) for file in got.files] == [("file", 14)]
    assert got.text_bytes == len("whisper-1") + len("hello")


@given(
    st.dictionaries(st.sampled_from(["model", "stream", "prompt", "n", "temperature"]),
                    st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=40)),
    st.lists(st.binary(max_size=200), max_size=3),
    # One that ends with a backslash is refused on purpose: see `HOSTILE`.
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
        lambda name: not name.endswith("\\")),
)  # fmt: skip
def test_what_a_client_library_writes_is_read(
    data: dict[str, str], files: list[bytes], filename: str
) -> None:
    uploads = [("file", (filename, content, "audio/mpeg")) for content in files]
    sent = Request("POST", "http://x", data=data, files=uploads or [("file", ("a", b""))])
    got = read(sent.read(), sent.headers["content-type"])
    assert got.fields == {name: value for name, value in data.items() if name in PRICED}
    assert [file.size for file in got.files] == [len(content) for content in files or [b""]]


HOSTILE = {
    "no boundary in the type": (form(MODEL), "multipart/form-data"),
    "an empty boundary": (form(MODEL), "multipart/form-data; boundary="),
    "two boundaries": (form(MODEL), TYPE + "; boundary=abc"),
    "two boundaries, one in another spelling": (form(MODEL), TYPE + "; BOUNDARY=abc"),
    "an encoded boundary": (form(MODEL), TYPE + "; boundary*=utf-8''abc"),
    "a type that does not parse": (form(MODEL), TYPE + '; x="'),
    "a boundary that is too long": (form(MODEL), f"multipart/form-data; boundary={'x' * 71}"),
    "nothing": (b"", TYPE),
    "no form": (b"{}", TYPE),
    "a preamble": (b"hello\r\n" + form(MODEL), TYPE),
    "an epilogue": (form(MODEL) + form(part('name="model"', b"dear")), TYPE),
    "no end": (form(MODEL, end=b""), TYPE),
    "cut in a part": (form(MODEL)[:-12], TYPE),
    "cut in a header": (b"--xyz\r\nContent-Dispo", TYPE),
    "bare line feeds": (form(MODEL).replace(b"\r\n", b"\n"), TYPE),
    "the boundary in a file": (form(MODEL, FILE + b"a--xyzb"), TYPE),
    "a longer boundary as a line of a file": (form(MODEL, FILE + b"a\r\n--xyzb\r\nb"), TYPE),
    "the boundary in a header": (form(MODEL, b"X: --xyz\r\n" + FILE), TYPE),
    "the boundary after a line feed": (form(MODEL, FILE + b"a\n--xyz\r\nb"), TYPE),
    "the boundary with a space behind": (form(MODEL, FILE + b"a\r\n--xyz \r\n" + MODEL), TYPE),
    "another form as a part": (
        form(b"Content-Type: multipart/mixed; boundary=abc\r\n\r\n--abc\r\n\r\n--abc--"),
        TYPE,
    ),
    "a part without headers": (form(b"\r\nwhisper-1"), TYPE),
    "giant headers": (form(b"X: " + b"x" * 5_000 + b"\r\n" + MODEL), TYPE),
    "ten thousand headers": (form(b"X: x\r\n" * 10_000 + MODEL), TYPE),
    "ten thousand parts": (form(*[MODEL] * 10_000), TYPE),
    "more parts than allowed": (form(*[part(f'name="p{n}"') for n in range(PARTS_MAX + 1)]), TYPE),
    "the model twice": (form(MODEL, MODEL), TYPE),
    "the model as a file": (form(part('name="model"; filename="m"')), TYPE),
    "the model, escaped": (form(part('name="mod%65l"')), TYPE),
    "the model in capitals": (form(MODEL, part('name="Model"')), TYPE),
    "the model, indexed": (form(MODEL, part('name="model[]"')), TYPE),
    "the model with a space": (form(MODEL, part('name=" model"')), TYPE),
    "two names": (form(part('name="a"; name="model"')), TYPE),
    "an encoded name": (form(part("name=\"a\"; name*=utf-8''model")), TYPE),
    "an escaped quote in a file's name": (
        form(part(r'name="f"; filename="a\"; name="model"')),
        TYPE,
    ),
    "a backslash at the end of a file's name": (
        form(MODEL, part('name="file"; filename="a\\"')),
        TYPE,
    ),
    "a backslash that some readers drop": (form(part(r'name="\model"')), TYPE),
    "an escaped quote before the boundary": (
        form(MODEL),
        r'multipart/form-data; x="a\"; boundary="xyz"',
    ),
    "no name": (form(part('filename="a"')), TYPE),
    "two dispositions": (form(b'Content-Disposition: form-data; name="a"\r\n' + MODEL), TYPE),
    "a folded header": (form(b'Content-Disposition: form-data;\r\n name="model"\r\n\r\nx'), TYPE),
    "NUL in a header": (form(part('name="model"', more="X: \0\r\n")), TYPE),
    "base64": (form(part('name="model"', more="Content-Transfer-Encoding: base64\r\n")), TYPE),
    "a length that is not the part's": (
        form(part('name="a"', more="Content-Length: 99\r\n")),
        TYPE,
    ),
    "another charset": (
        form(part('name="model"', more="Content-Type: text/plain; charset=utf-16\r\n")),
        TYPE,
    ),
    "a charset for all": (form(MODEL, part('name="_charset_"', b"utf-16")), TYPE),
    "a model that is JSON": (
        form(part('name="model"', b'"x"', "Content-Type: application/json\r\n")),
        TYPE,
    ),
    "a model that is not UTF-8": (form(part('name="model"', b"\xff")), TYPE),
    "a model of two lines": (form(part('name="model"', b"a\nb")), TYPE),
    "a model as long as a file": (form(part('name="model"', b"x" * 5_000)), TYPE),
}


def read_in_pieces(
    body: bytes, content_type: str, cuts: list[int], passed: list[bytes]
) -> tuple[Form, bytes]:
    """The form and the rest of it, after what went on before its end was there."""
    reader = FormReader(content_type, PRICED)
    for a, b in pairwise([0, *sorted(cuts), len(body)]):
        passed.append(reader.feed(body[a:b]))
    return reader.form, reader.finish()


WHOLE = form(MODEL, FILE + b"\0sound\r\n\r\n--xy", part('name="prompt"', b"hello"))


@pytest.mark.parametrize("cuts", [*([n] for n in range(len(WHOLE))), list(range(len(WHOLE)))])
def test_in_pieces_it_is_the_same_form_and_its_end_is_kept_back(cuts: list[int]) -> None:
    passed: list[bytes] = []
    got, rest = read_in_pieces(WHOLE, TYPE, cuts, passed)
    assert got == read(WHOLE)
    assert b"".join(passed) + rest == WHOLE
    assert rest.endswith(b"\r\n--xyz--\r\n")
    assert len(rest) < 40


@pytest.mark.parametrize("case", HOSTILE)
@given(data=st.data())
@settings(max_examples=5)
def test_hostile_forms_are_refused_before_their_end(case: str, data: st.DataObject) -> None:
    """However they are cut; and what went on before has no end."""
    body, content_type = HOSTILE[case]
    body = body[:20_000]
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=9))
    passed: list[bytes] = []
    with pytest.raises(AskError):
        read_in_pieces(body, content_type, cuts, passed)
    assert b"--xyz--" not in b"".join(passed)


def test_of_many_files_little_is_kept() -> None:
    many = form(*[FILE + b"x" * 9_000] * 40)
    got = read(many)
    assert [file.size for file in got.files] == [9_000] * 40
    assert sum(len(file.head) for file in got.files) == KEPT_MAX_BYTES


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_forms_are_refused(case: str) -> None:
    body, content_type = HOSTILE[case]
    with pytest.raises(AskError):
        read(body, content_type)


def test_a_big_form_costs_one_pass() -> None:
    for content in (os.urandom(2**23), b"\r\n--xy" * 2**20, b"\r\n" * 2**22, b"-" * 2**23):
        began = time.process_time()
        read(form(MODEL, FILE + content))
        assert time.process_time() - began < 0.2


MEDIA = Media(Quirks(), "transcription")


def wav(rate: int, samples: int) -> bytes:
    figures = ((1, 2), (1, 2), (rate, 4), (rate * 2, 4), (2, 2), (16, 2))
    head = b"".join(value.to_bytes(size, "little") for value, size in figures)
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + head + b"data\0\0\0\0" + b"\0\0" * samples


@pytest.mark.parametrize(
    ("sound", "likely_ms", "most_ms"),
    [
        (b"OggS" + b"x" * 3_996, 1_000, 4_000),
        (b"ID3\4\0\0\0\0\0\2xx\xff\xfb\x90\0" + b"x" * 15_984, 1_000, 16_000),
        (b"\xff\xf3\x40\0" + b"x" * 3_996, 1_000, 4_000),
        (b"fLaC" + b"x" * 31_996, 1_000, 32_000),
        (wav(16_000, 16_000), 1_001, 1_002),
        (wav(16_000, 16_000).replace(b"\2\0\x10\0data", b"\4\0\x10\0data"), 8_011, 32_044),
        (b"", 0, 0),
    ],
)
def test_a_recording_is_as_long_as_its_bytes_allow(
    sound: bytes, likely_ms: int, most_ms: int
) -> None:
    ask = MEDIA.ask("POST", "/v1/audio/transcriptions", "", TYPE, form(MODEL, FILE + sound))
    assert (ask.model, ask.input_ms, ask.input_ms_most) == ("whisper-1", likely_ms, most_ms)
    assert ask.makes_output
    deepgram = Media(Quirks(model_in_query=True), "transcription")
    raw = deepgram.ask("POST", "/v1/listen", "a=b&model=nova-3", "audio/wav", sound or b"x")
    assert raw.model == "nova-3"
    assert raw.input_ms == likely_ms


def test_forms_of_the_routes() -> None:
    streamed = form(MODEL, part('name="stream"', b"true"), FILE + b"x" * 100)
    ask = MEDIA.ask("POST", "/v1/audio/transcriptions", "", TYPE, streamed)
    assert ask.stream
    pointing = form(part('name="model_id"', b"scribe_v1"), part('name="cloud_storage_url"'))
    ask = MEDIA.ask("POST", "/v1/speech-to-text", "", TYPE, pointing)
    assert (ask.model, ask.input_ms_most) == ("scribe_v1", UNSEEN_MS)
    pictures = form(part('name="model"', b"gpt-image-1"), part('name="n"', b"3"), FILE + b"p")
    ask = Media(Quirks(), "images").ask("POST", "/v1/images/edits", "", TYPE, pictures)
    assert (ask.images, ask.choices, ask.output_cap) == (3, 3, PICTURE_TOKENS)
    assert ask.media_tokens == IMAGE_TOKENS
    for name, value in (("stream", b"maybe"), ("n", b"0"), ("n", b"-1"), ("n", b"1e3")):
        with pytest.raises(AskError):
            MEDIA.ask("POST", "/", "", TYPE, form(MODEL, part(f'name="{name}"', value)))


@pytest.mark.parametrize(
    ("in_query", "query", "model"),
    [(True, "model=aura-2", "aura-2"), (True, "model=a%2Db", "a-b"), (True, "", None),
     (True, "model=a&model=b", None), (False, "model=aura-2", "tts-1")],
)  # fmt: skip
def test_the_model_stands_where_the_provider_looks(
    in_query: bool, query: str, model: str | None
) -> None:
    adapter = Media(Quirks(model_in_query=in_query), "speech")
    body = b'{"model": "tts-1", "text": "hello"}'
    assert adapter.ask("POST", "/v1/speak", query, "application/json", body).model == model


def test_two_names_of_the_model_may_not_differ() -> None:
    for adapter, content_type, body in (
        (Media(Quirks(), "speech"), "application/json", b'{"model": "a", "model_id": "b"}'),
        (MEDIA, TYPE, form(MODEL, part('name="model_id"', b"scribe_v1"))),
    ):
        with pytest.raises(AskError):
            adapter.ask("POST", "/", "", content_type, body)


def test_every_route_with_uploads_reads_its_form() -> None:
    for provider in Registry.builtin().providers:
        for route in provider.routes:
            if route.family == "media" and route.kind in ("transcription", "images"):
                adapter = Registry.builtin().adapter(provider, route)
                sent = form(MODEL, FILE + b"x" * 100)
                ask = adapter.ask("POST", route.path, "model=whisper-1", TYPE, sent)
                assert ask.model == "whisper-1", (provider.id, route.path)


def by_werkzeug(body: bytes) -> list[str]:
    """Every value of the field, as a parser of the other school reads it."""
    parser = MultiPartParser(stream_factory=lambda **_: io.BytesIO())
    fields, _ = parser.parse(io.BytesIO(body), b"xyz", len(body))
    return list(fields.getlist("model"))


def by_email(body: bytes) -> list[str]:
    head = f"Content-Type: {TYPE}\r\n\r\n".encode()
    found = []
    for item in message_from_bytes(head + body, policy=HTTP).walk():
        if item.get_param("name", header="content-disposition") == "model":
            found.append(bytes(item.get_payload(decode=True) or b"").decode("utf-8", "replace"))
    return found


PIECES = [
    b"\r\n", b"\n", b"\r", b"--xyz", b"--", b"\r\n--xyz\r\n", MODEL, FILE, b'name="model"',
    b"model", b"; filename=x", b"; name=y", b"Content-Disposition: form-data", b'"', b"\\", b"%",
    b" ", b":", b"\0", b"dear",
]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 6), st.sampled_from(PIECES)),
                min_size=1, max_size=3))  # fmt: skip
def test_other_readers_find_the_same_model(changes: list[tuple[int, int, bytes]]) -> None:
    """Whatever is done to a form: if we take it, everybody reads the model that we read."""
    body = form(part('name="prompt"', b"hello"), MODEL, FILE + b"sound", part('name="n"', b"1"))
    for at, gone, put in changes:
        at %= len(body)
        body = body[:at] + put + body[at + gone :]
    try:
        ours = read(body).fields
    except AskError:
        return
    wanted = [ours["model"]] if "model" in ours else []
    assert by_werkzeug(body) == wanted
    assert by_email(body) == wanted
