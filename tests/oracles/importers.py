"""Small sources written and read without the importers: what goes in, and what must come out.

Each function writes a source into an empty folder and returns its path, the importer's parameters and a
function that gives (class names, rows), a row being (id, labels, mask, maps) in order. There is no importer
in this package yet; tests/third_party has one of another package.
"""

from __future__ import annotations
