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


def counted(tab: Tab, pieces: list[bytes]) -> tuple[int, int]:
    for piece in pieces:
        Tab.pass_over(tab, piece)
    return tab.content_frames, tab.content_bytes


def plainly(tab: Tab, pieces: list[bytes]) -> tuple[int, int]:
    sizes = [sum(map(len, tab.written.findall(piece))) for piece in pieces]
    return sum(size > 0 for size in sizes), sum(sizes)


texts = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)


def test_no_tab_that_counts_words_is_left_out() -> None:
    def kinds(of: type[Tab]) -> Iterator[type[Tab]]:
        for kind in of.__subclasses__():
            yield kind
            yield from kinds(kind)

    patterns = {tab().written.pattern for tab in TABS.values()}
    assert {kind.written.pattern for kind in kinds(Tab) if kind.written.groups} <= patterns


@pytest.mark.parametrize("tab", TABS)
@given(begins=st.lists(texts, min_size=1, max_size=3), ends=st.lists(st.tuples(st.integers(0, 2), texts), max_size=12))
def test_pieces_that_begin_alike_are_counted_as_if_each_came_alone(
    tab: str, begins: list[str], ends: list[tuple[int, str]]
) -> None:
    pieces = [(begins[which % len(begins)] + end).encode() for which, end in ends]
    assert counted(TABS[tab](), pieces) == plainly(TABS[tab](), pieces)


def test_a_stream_that_begins_anew_with_every_piece_is_counted_to_its_end() -> None:
    pieces = [b'data: {"n":%d,"delta":"four"}\n\n' % n for n in range(100)]
    assert counted(ResponsesStreamTab(), pieces) == (100, 400)
    assert counted(ResponsesStreamTab(), [b"a" * 5000 + piece for piece in pieces]) == (100, 400)
