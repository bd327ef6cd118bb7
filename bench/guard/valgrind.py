"""Valgrind's client requests from Python: start and stop counting inside the program that is counted.

A request is an instruction sequence that does nothing on a processor and means something to valgrind; valgrind.h has it as
a C macro. Counting only what lies between two requests leaves out the interpreter's start, which is never twice the same.
"""

import ctypes
import mmap

# For x86-64, as in valgrind.h: request in rax, default answer in rdx; four rotations and an exchange; the answer in rdx.
_CODE = bytes.fromhex("4889f8 4889f2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
_CALLGRIND = (ord("C") << 24) | (ord("T") << 16)
ZERO, DUMP_AT, START, STOP = _CALLGRIND + 1, _CALLGRIND + 3, _CALLGRIND + 4, _CALLGRIND + 5


class Requests:
    """`request(START)`; outside valgrind nothing happens."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(_CODE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        signature = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)
        self._call = signature(self._address)

    def request(self, code: int, word: bytes | None = None) -> None:
        pointer = ctypes.cast(ctypes.c_char_p(word), ctypes.c_void_p).value or 0
        arguments = (ctypes.c_size_t * 6)(code, pointer)
        self._call(ctypes.addressof(arguments), 0)
