"""What the build puts beside this file: libkoala, as cffi sees it."""

from typing import Any

ffi: Any
lib: Any
