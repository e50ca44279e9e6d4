"""Join printed pages to one PDF, with bookmarks, page numbers, and links that lead into it."""

import io
from urllib.parse import unquote, urldefrag

from pypdf import PageObject, PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    BooleanObject,
    DictionaryObject,
    Fit,
    FloatObject,
    NameObject,
    NullObject,
    TextStringObject,
)


class Joined:
    """A PDF in the making: its pages, bookmarks, and where the anchors of each name lie.

    `origin` is the address that the pages were printed from: links to it lead into this file where
    it has the page, else to `address` where that is set, else nowhere.
    """

    def __init__(self, origin: str, address: str = ""):
        self.writer = PdfWriter()
        self.origin, self.address = origin, address
        self.places = {}  # (name, anchor or "") to an explicit destination
        self.names = []  # for each page, the name of what it was printed from
        self.parts = {}  # captions of parts to their bookmarks

    def add(self, name: str, pdf: PdfReader, title: str, part: str = "") -> None:
        """Append something printed, with a bookmark (below that of its part) and its sections."""
        first = len(self.writer.pages)
        self.writer.append(pdf, import_outline=False)
        self.names += [name] * len(pdf.pages)
        self.places.setdefault((name, ""), self.place(first))
        for anchor, place in pdf.named_destinations.items():
            number = first + pdf.get_destination_page_number(place)
            key = (name, unquote(anchor.removeprefix("/")))
            self.places.setdefault(key, self.place(number, place.top))
        if part and part not in self.parts:
            self.parts[part] = self.writer.add_outline_item(part, first, bold=True, is_open=False)
        mark = self.writer.add_outline_item(
            title, first, parent=self.parts.get(part), is_open=False
        )
        for section in _sections(pdf.outline):
            number = first + pdf.get_destination_page_number(section)
            text, fit = str(section.title).rstrip("# "), Fit.xyz(top=section.top)
            self.writer.add_outline_item(text, number, parent=mark, fit=fit)

    def place(self, number: int, top: float | None = None) -> ArrayObject:
        """The destination of a page of this file, or of a height on it."""
        page = self.writer.pages[number].indirect_reference
        where = NullObject() if top is None else FloatObject(top)
        return ArrayObject([page, NameObject("/XYZ"), NullObject(), where, NullObject()])

    def finish(self, about: dict[str, str], feet: list[PageObject | None]) -> bytes:
        """Set the links, what the file says about itself and the foot of each page."""
        for name, page, foot in zip(self.names, self.writer.pages, feet, strict=True):
            self._link(name, page)
            if foot is not None:
                page.merge_page(foot)
        self.writer.add_metadata(about)
        root = self.writer.root_object
        root[NameObject("/Lang")] = TextStringObject("en")
        shown = {NameObject("/DisplayDocTitle"): BooleanObject(True)}
        root[NameObject("/ViewerPreferences")] = DictionaryObject(shown)
        self.writer.page_mode = "/UseOutlines"
        file = io.BytesIO()
        self.writer.write(file)
        return file.getvalue()

    def _link(self, name: str, page: PageObject) -> None:
        kept = ArrayObject()
        for reference in page.get("/Annots", []):
            link = reference.get_object()
            uri = str(link["/A"].get("/URI", "")) if "/A" in link else ""
            if uri and not uri.startswith(self.origin):
                kept.append(reference)
                continue
            path, anchor = urldefrag(uri.removeprefix(self.origin))
            anchor = unquote(anchor or str(link.get("/Dest", "")).removeprefix("/"))
            to = path.removesuffix(".html") or name
            place = self.places.get((to, anchor)) or self.places.get((to, ""))
            link.pop("/A", None)
            link.pop("/Dest", None)
            if place is not None:
                link[NameObject("/Dest")] = place
            elif self.address:
                link[NameObject("/A")] = _web(self.address + uri.removeprefix(self.origin))
            else:
                continue
            kept.append(reference)
        page[NameObject("/Annots")] = kept


def _web(address: str) -> DictionaryObject:
    action = {"/S": NameObject("/URI"), "/URI": TextStringObject(address)}
    return DictionaryObject({NameObject(key): value for key, value in action.items()})


def _sections(outline: list) -> list:
    """The bookmarks below the title of a printed page."""
    below = [entry for entry in outline if isinstance(entry, list)]
    return [entry for entry in below[0] if not isinstance(entry, list)] if below else []
