"""Teacher outputs on disk: format, writer, reader, verification."""

from limbeck.store.reader import TeacherStore

__all__ = ["TeacherStore"]
