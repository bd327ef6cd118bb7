"""What a model wrote is counted in every piece, however alike the pieces of an answer begin."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic.messages import MessagesTab
from gateway.dialects.gemini.usage import ContentTab
from gateway.dialects.meter import CountTab, Tab
from gateway.dialects.openai.audio import SpeechEventsTab, TranscriptEventsTab, TranscriptTab
from gateway.dialects.openai.chat import ChatTab
from gateway.dialects.openai.completions import CompletionsTab
from gateway.dialects.openai.responses import ResponsesStreamTab, ResponsesTab

TABS: dict[str, Callable[[], Tab]] = {
    **{tab.__name__: tab for tab in (ChatTab, CompletionsTab, MessagesTab, ResponsesTab, ResponsesStreamTab, CountTab)},
    "ContentTab": lambda: ContentTab("gemini-9", None),
    "SpeechEventsTab": lambda: SpeechEventsTab(9, 1),
    "TranscriptTab": lambda: TranscriptTab(9),
    "TranscriptEventsTab": lambda: TranscriptEventsTab(9),
}
NAMES = (
    "content", "refusal", "arguments", "text", "thinking", "compaction_delta", "delta", "summary", "code", "audio", "id",
)  # fmt: skip
PARTS = (*(f'"{name}"' for name in NAMES), *NAMES, '"', ":", " : ", ",", "{", "}", "\\", '\\"', "hello", "\n")
OPENINGS = tuple(f'"{name}":"' for name in NAMES)


def counted(tab: Tab, pieces: list[bytes]) -> tuple[int, int]:
    for piece in pieces:
        if not tab.is_alike(piece):
            Tab.pass_over(tab, piece)
    return tab.content_frames, tab.content_bytes


def plainly(tab: Tab, pieces: list[bytes]) -> tuple[int, int]:
    sizes = [sum(map(len, tab.written.findall(piece))) for piece in pieces]
    return sum(size > 0 for size in sizes), sum(sizes)


texts = st.lists(st.sampled_from((*PARTS, *OPENINGS)), max_size=12).map("".join)


def test_no_tab_that_counts_words_is_left_out() -> None:
    def kinds(of: type[Tab]) -> Iterator[type[Tab]]:
        for kind in of.__subclasses__():
            yield kind
            yield from kinds(kind)

    patterns = {tab().written.pattern for tab in TABS.values()}
    assert {kind.written.pattern for kind in kinds(Tab) if kind.written.groups} <= patterns


@pytest.mark.parametrize("tab", TABS)
@given(
    begins=st.lists(st.tuples(texts, st.sampled_from(("", *OPENINGS))).map("".join), min_size=1, max_size=3),
    words=st.lists(st.tuples(st.integers(0, 2), texts, st.integers(0, 2)), max_size=12),
    ends=st.lists(texts.map('"'.__add__) | texts, min_size=1, max_size=3),
)
def test_pieces_that_are_alike_are_counted_as_if_each_came_alone(
    tab: str, begins: list[str], words: list[tuple[int, str, int]], ends: list[str]
) -> None:
    pieces = [(begins[begin % len(begins)] + word + ends[end % len(ends)]).encode() for begin, word, end in words]
    assert counted(TABS[tab](), pieces) == plainly(TABS[tab](), pieces)


def test_a_stream_that_begins_anew_with_every_piece_is_counted_to_its_end() -> None:
    pieces = [b'data: {"n":%d,"delta":"four"}\n\n' % n for n in range(100)]
    assert counted(ResponsesStreamTab(), pieces) == (100, 400)
    assert counted(ResponsesStreamTab(), [b"a" * 5000 + piece for piece in pieces]) == (100, 400)


def delta(words: str, *, before: str = "", after: str = "") -> bytes:
    return f'data: {{{before}"delta":"{words}"{after}}}\n\n'.encode()


def after(first: bytes) -> ResponsesStreamTab:
    """What has passed over one piece."""
    tab = ResponsesStreamTab()
    assert not tab.is_alike(first)
    tab.pass_over(first)
    return tab


@pytest.mark.parametrize("words", ["", "four", " caf\u00e9", "a\\nb", "response.completed", "data: [DONE]"])
def test_a_piece_that_differs_in_its_words_only_is_known(words: str) -> None:
    tab, size = after(delta("one")), len(words.encode())
    assert tab.is_alike(delta(words))
    assert (tab.content_frames, tab.content_bytes) == (1 + (size > 0), 3 + size)


@pytest.mark.parametrize(
    "piece",
    [
        delta("one", before='"n":1,'),
        delta("one").replace(b"delta", b"omega"),
        delta("one", after=',"n":1'),
        delta('one","delta":"two'),
        delta('one \\"two\\"'),
        delta("one\\"),
        b'data: {"delta":"}\n\n',
        delta("one")[:-1],
        b"",
    ],
)
def test_a_piece_that_differs_elsewhere_is_not(piece: bytes) -> None:
    tab = after(delta("one"))
    assert not tab.is_alike(piece)
    assert (tab.content_frames, tab.content_bytes) == (1, 3)


@pytest.mark.parametrize("more", [',"delta":"two"', ',"type":"response.completed"'])
def test_no_piece_is_like_one_that_says_more(more: str) -> None:
    first = delta("one", after=more)
    assert not after(first).is_alike(first)
