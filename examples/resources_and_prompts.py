"""Resources at fixed and at templated URIs, and a prompt whose argument is completed."""

from garrison import ResourceNotFound, Server

server = Server("library")

BOOKS = {"emma": "Emma Woodhouse, handsome, clever, and rich", "moby-dick": "Call me Ishmael."}


@server.resource("books://titles")
def titles() -> list[str]:
    """The titles of all books."""
    return sorted(BOOKS)


@server.resource("books://book/{title}", mime_type="text/plain")
def book(title: str) -> str:
    """How a book begins."""
    if title not in BOOKS:
        raise ResourceNotFound(f"books://book/{title}")
    return BOOKS[title]


@server.prompt()
def continue_book(title: str) -> str:
    """Have the second sentence of a book written."""
    return f"Write the sentence that comes after: {BOOKS.get(title, title)}"


@server.completion("continue_book", "title")
def complete_title(value: str) -> list[str]:
    """Titles that begin with what was typed."""
    return [title for title in sorted(BOOKS) if title.startswith(value)]


if __name__ == "__main__":
    server.run()
